// The specification and the fast path behind linear.h.
#pragma once

#include "kernels/linear/linear.h"

namespace qnpu {

void linear_s8_reference(const int8_t* x, int m, const LinearWeights& w, int8_t* y);
void linear_s16_reference(const int16_t* x, int m, const LinearWeights& w, int16_t* y);

}  // namespace qnpu
