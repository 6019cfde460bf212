// A request's JSON object, read field by field: whatever is not read is an error at the end, so
// that a client learns of a field that this server does not know.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/api/error.h"

namespace qnpu::server {

// Error 400: not JSON, invalid UTF-8, nested too deeply, no object.
nlohmann::json parse_object(std::string_view body);

// Null is as good as absent everywhere. Each reader throws ApiError 400 if the value has another
// type or is outside its range.
class Fields {
 public:
  // `path`: of the object within the request ("messages[0]"), or empty. The object must outlive
  // this.
  explicit Fields(const nlohmann::json& object, std::string path = "");

  const nlohmann::json* find(const char* name);  // nullptr if absent
  std::string name_of(const char* name) const;   // with the path

  bool flag(const char* name, bool otherwise);
  int integer(const char* name, int otherwise, int low, int high);
  std::optional<int> integer(const char* name, int low, int high);
  double number(const char* name, double otherwise, double low, double high);
  std::optional<uint64_t> seed(const char* name);
  std::string text(const char* name, const std::string& otherwise);
  std::vector<std::string> texts(const char* name, size_t most);  // a text or a list of texts

  void ignore(std::initializer_list<const char*> names);
  // Fields of OpenAI's that would change the answer. Fine if they ask for nothing: false, 0, an
  // empty list, object or text, or the value `neutral`.
  void refuse(const char* name, const nlohmann::json& neutral = nullptr);
  void finish() const;  // error 400 if there is a field that nobody asked for

 private:
  const nlohmann::json& object_;
  std::string path_;
  std::set<std::string> known_;
};

}  // namespace qnpu::server
