// The specification behind attention.h.
#pragma once

#include "kernels/attention/attention.h"

namespace qnpu {

void scores_s16s8_s16_reference(const int16_t* q, const int8_t* k_cache,
                                const AttentionShape& shape, Requant law, int16_t* scores);
void softmax_s16_u16_reference(const int16_t* masked, const AttentionShape& shape,
                               const uint32_t* exp_high, const uint32_t* exp_low,
                               uint16_t* probabilities);
void context_u16s8_s16_reference(const uint16_t* probabilities, const int8_t* v_cache,
                                 const AttentionShape& shape, Requant law, int16_t* out);

// Positions that token t of this call sees.
inline int visible(const AttentionShape& shape, int t) { return shape.position + t + 1; }

}  // namespace qnpu
