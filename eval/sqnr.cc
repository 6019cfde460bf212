#include "eval/sqnr.h"

#include <cmath>
#include <limits>

#include "base/status.h"

namespace qnpu {

void SqnrSum::add(std::span<const float> reference, std::span<const float> quantized) {
  QNPU_ASSERT(reference.size() == quantized.size());
  for (size_t i = 0; i < reference.size(); ++i) {
    const double x = reference[i];
    const double error = x - quantized[i];
    signal += x * x;
    noise += error * error;
  }
}

double SqnrSum::db() const {
  if (noise == 0.0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(signal / noise);
}

double sqnr_db(std::span<const float> reference, std::span<const float> quantized) {
  SqnrSum sum;
  sum.add(reference, quantized);
  return sum.db();
}

}  // namespace qnpu
