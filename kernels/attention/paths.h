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

// One segment; scratch for [H, C] scores, masked scores and probabilities.
void attention_s16s8_s16_reference(const AttentionSegment& segment, const AttentionShape& shape,
                                   const AttentionLaw& law, void* scratch);

// From a row of n scores to its probabilities as two planes of bytes. `scores` is overwritten,
// `e` is room for n exponentials.
struct SoftmaxRow {
  int16_t* scores;
  int n;
  uint16_t* e;
  uint8_t* high;
  uint8_t* low;
};
void softmax_row(const SoftmaxRow& row, const AttentionLaw& law);

// Both tables of the exponential in pieces of 16 bits: a number of the high table is at most 2^30,
// one of the low table 2^15.
struct alignas(64) ExpPieces {
  uint16_t low[256], top[256], bottom[256];
  int groups;  // of 64 numbers of the high table, up to the last that is not always cut to zero
};
ExpPieces exp_pieces(const AttentionLaw& law);
void softmax_row_avx512vnni(const SoftmaxRow& row, const AttentionLaw& law,
                            const ExpPieces& tables);

// Positions that token t of this call sees.
inline int visible(const AttentionShape& shape, int t) { return shape.position + t + 1; }

}  // namespace qnpu
