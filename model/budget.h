// What chosen widths may cost, as a recipe or the command line says it:
//
//   16bit<=P%    inputs of down_proj with 16 bits, as a share of the layers; 0 % if it is not given
//   size<=N MB   of the artifact's model.safetensors (also kB, GB, KiB, MiB, GiB); any if it is not
//
// Terms are separated by commas, in any order; spaces do no harm.
#pragma once

#include <cstdint>
#include <string>

namespace qnpu {

struct Budget {
  double wide_share = 0.0;  // 0 .. 1
  int64_t bytes = 0;        // 0: any size

  // Layers, at most: a share of 10 % of 30 is 3, whatever the product's last bit.
  int wide_layers(int layers) const { return static_cast<int>(wide_share * layers + 1e-9); }
};

// Error with an example: a term that is none of these, or is given twice.
Budget parse_budget(const std::string& text);

// A size as parse_budget reads it, rounded up: "129.6MB", "131kB".
std::string budget_size(int64_t bytes);

}  // namespace qnpu
