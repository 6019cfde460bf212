// A site's grid as the learning operations take it: the zero point is inside the bounds.
#pragma once

#include "base/qparams.h"

namespace qnpu {

// Values scale * n for the integers n in low .. high. Scale 0: no grid, values pass unrounded.
struct Grid {
  float scale = 0.0f;
  float low = 0.0f;
  float high = 0.0f;

  bool used() const { return scale > 0.0f; }
};

// The grid of a site with one scale: low = qmin - zero_point, high = qmax - zero_point.
inline Grid grid_of(const QParams& qparams) {
  const IntegerRange range = integer_range(qparams.dtype);
  const int zero_point = qparams.zero_point.empty() ? 0 : qparams.zero_point.front();
  return {qparams.scale.front(), static_cast<float>(range.qmin - zero_point),
          static_cast<float>(range.qmax - zero_point)};
}

}  // namespace qnpu
