// Quantization parameters as AIMET and QAIRT read them beside a float model: files of "encodings".
//
// There, real = scale * (q + offset), with offset = -zero_point of the unsigned form. (This is the
// only place of the program that uses the word.)
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qnpu {

// Of one tensor of the graph: one scale, or one for each index of its first axis.
struct Encoding {
  std::string tensor;
  int bitwidth = 8;
  bool parameter = false;  // a weight, signed and symmetric; else an activation, unsigned
  int zero_point = 0;      // of an activation
  std::vector<float> scale;
};

// `version` is "0.6.1", "1.0.0" or "2.0.0".
nlohmann::json encodings_to_json(const std::vector<Encoding>& encodings,
                                 const std::string& version);

}  // namespace qnpu
