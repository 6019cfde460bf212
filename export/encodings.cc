#include "export/encodings.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/status.h"

namespace qnpu {
namespace {

using nlohmann::json;

bool per_channel(const Encoding& e) { return e.parameter && e.scale.size() > 1; }
int half(const Encoding& e) { return 1 << (e.bitwidth - 1); }
int offset(const Encoding& e) { return e.parameter ? -half(e) : -e.zero_point; }
bool is_symmetric(const Encoding& e) { return offset(e) == -half(e); }

// A list, one entry for each channel.
json to_json_0_6_1(const Encoding& e) {
  json list = json::array();
  const int top = (1 << e.bitwidth) - 1;
  for (const float scale : e.scale) {
    list.push_back({{"bitwidth", e.bitwidth},
                    {"dtype", "int"},
                    {"is_symmetric", is_symmetric(e) ? "True" : "False"},
                    {"min", double{scale} * offset(e)},
                    {"max", double{scale} * (top + offset(e))},
                    {"offset", offset(e)},
                    {"scale", scale}});
  }
  return list;
}

json to_json_1_0_0(const Encoding& e) {
  return {{"name", e.tensor},
          {"enc_type", per_channel(e) ? "PER_CHANNEL" : "PER_TENSOR"},
          {"dtype", "INT"},
          {"bw", e.bitwidth},
          {"is_sym", is_symmetric(e)},
          {"scale", e.scale},
          {"offset", std::vector<int>(e.scale.size(), offset(e))}};
}

json to_json_2_0_0(const Encoding& e) {
  json result = {{"name", e.tensor},
                 {"output_dtype", fmt::format("{}int{}", e.parameter ? "" : "u", e.bitwidth)},
                 {"y_scale", per_channel(e) ? json(e.scale) : json(e.scale[0])}};
  if (!e.parameter) result["y_zero_point"] = e.zero_point;
  if (per_channel(e)) result["axis"] = 0;
  return result;
}

}  // namespace

json encodings_to_json(const std::vector<Encoding>& encodings, const std::string& version) {
  json result = {{"version", version}};
  if (version == "2.0.0") {
    for (const Encoding& e : encodings) result["encodings"].push_back(to_json_2_0_0(e));
    return result;
  }
  const bool old = version == "0.6.1";
  if (!old && version != "1.0.0") fail("encodings of version {} are not known", version);
  json& activations = result["activation_encodings"] = old ? json::object() : json::array();
  json& parameters = result["param_encodings"] = old ? json::object() : json::array();
  for (const Encoding& e : encodings) {
    json& where = e.parameter ? parameters : activations;
    if (old) {
      where[e.tensor] = to_json_0_6_1(e);
    } else {
      where.push_back(to_json_1_0_0(e));
    }
  }
  return result;
}

}  // namespace qnpu
