#include "npu/target.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

using nlohmann::json;

// A target's file, with complaints that name it.
class TargetFile {
 public:
  explicit TargetFile(const std::filesystem::path& path)
      : file_(path.string()), json_(read_json(path)) {
    if (!json_.is_object()) fail("{}: not a JSON object", file_);
  }

  const json& at(const char* key) const {
    if (!json_.contains(key)) fail("{}: the key '{}' is missing", file_, key);
    return json_[key];
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail("{}: '{}' must be a text", file_, key);
    return at(key).get<std::string>();
  }
  double positive(const char* key) const {
    if (!at(key).is_number() || at(key).get<double>() <= 0) {
      fail("{}: '{}' must be a number above 0", file_, key);
    }
    return at(key).get<double>();
  }
  double positive_or_none(const char* key) const { return json_.contains(key) ? positive(key) : 0; }

  std::vector<int> integers(const char* key) const {
    std::vector<int> values;
    for (const json& x : list(key)) {
      if (!x.is_number_integer()) fail("{}: '{}' must be a list of integers", file_, key);
      values.push_back(x.get<int>());
    }
    return values;
  }

  std::map<std::string, std::vector<Widths>> operations() const {
    const json& object = at("operations");
    if (!object.is_object()) fail("{}: 'operations' must be an object", file_);
    std::map<std::string, std::vector<Widths>> result;
    for (const auto& [name, list] : object.items()) {
      if (!list.is_array()) fail("{}: operations.{} must be a list", file_, name);
      for (const json& x : list) result[name].push_back(widths(name, x));
    }
    return result;
  }

 private:
  const json& list(const char* key) const {
    if (!at(key).is_array()) fail("{}: '{}' must be a list", file_, key);
    return at(key);
  }

  // "16x8>16", ">16"
  Widths widths(const std::string& operation, const json& value) const {
    static const std::regex form(R"((?:\d{1,2}(?:x\d{1,2})*)?>\d{1,2})"), number(R"(\d+)");
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!std::regex_match(text, form)) {
      fail("{}: operations.{}: '{}' is not understood; write widths as \"16x8>16\"", file_,
           operation, text);
    }
    Widths result;
    for (std::sregex_iterator i(text.begin(), text.end(), number), end; i != end; ++i) {
      result.in.push_back(std::stoi(i->str()));
    }
    result.out = result.in.back();
    result.in.pop_back();
    return result;
  }

  std::string file_;
  json json_;
};

}  // namespace

std::string to_text(const Widths& widths) {
  return fmt::format("{}>{}", fmt::join(widths.in, "x"), widths.out);
}

Target load_target(const std::filesystem::path& path) {
  const TargetFile file(path);
  Target target;
  target.file = path.string();
  target.name = file.text("name");
  target.soc_model = static_cast<int>(file.positive("soc_model"));
  target.htp_arch = file.text("htp_arch");
  target.operations = file.operations();
  target.weight_bits = file.integers("weight_bits");
  target.weight_blocks = file.integers("weight_blocks");
  target.session_mb = file.positive("session_mb");
  target.tcm_mb = file.positive_or_none("tcm_mb");
  target.memory_gb_per_s = file.positive_or_none("memory_gb_per_s");
  target.npu_speed = file.positive_or_none("npu_speed");
  return target;
}

}  // namespace qnpu
