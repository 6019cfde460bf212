// A part of a JSON file together with its name, so that every complaint about it says where it is.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace qnpu {

class JsonPart {
 public:
  // `where` is the file, then the names of the parts: "x/tokenizer.json: model". The value must
  // outlive the part.
  JsonPart(const nlohmann::json& value, std::string where);

  const nlohmann::json& value() const { return *value_; }
  bool has(const char* key) const;     // there and not null
  JsonPart at(const char* key) const;  // Error if missing
  JsonPart at_any(const std::string& key) const;
  std::vector<JsonPart> list(const char* key) const;

  std::string kind() const { return text("type"); }
  std::string text(const char* key) const;
  std::string text(const char* key, const char* otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  int number(const char* key) const;  // not negative, below 2^24

  [[noreturn]] void fail_here(std::string_view what) const;
  [[noreturn]] void fail_unknown_kind(std::string_view supported) const;

 private:
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace qnpu
