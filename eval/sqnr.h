// Signal-to-quantization-noise ratio: how much of a site's signal survives quantization.
//
//   sqnr = 10 * log10(sum of reference^2 / sum of (reference - quantized)^2)   in decibels
#pragma once

#include <span>

namespace qnpu {

// Sums over any number of pieces of one site.
struct SqnrSum {
  double signal = 0.0;
  double noise = 0.0;

  void add(std::span<const float> reference, std::span<const float> quantized);
  double db() const;  // infinity where there is no noise (equal pieces, or nothing added)
};

double sqnr_db(std::span<const float> reference, std::span<const float> quantized);

}  // namespace qnpu
