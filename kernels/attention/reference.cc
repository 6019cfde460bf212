#include <algorithm>

#include "kernels/attention/paths.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

int16_t saturate(int64_t v) { return static_cast<int16_t>(std::clamp<int64_t>(v, -32768, 32767)); }

// Calls row(h, t, index of the row in [H, T]).
template <typename Row>
void for_each_row(const AttentionShape& s, Row row) {
  parallel_for(int64_t{s.heads} * s.tokens, [&](int64_t i, int) {
    row(static_cast<int>(i / s.tokens), static_cast<int>(i % s.tokens), i);
  });
}

}  // namespace

// scores[h, t, c] = requantize16(sum over d of q[t, h, d] * k[c, g, d]).
void scores_s16s8_s16_reference(const int16_t* q, const int8_t* k_cache, const AttentionShape& s,
                                Requant law, int16_t* scores) {
  for_each_row(s, [&](int h, int t, int64_t row) {
    const int64_t g = h / (s.heads / s.kv_heads);
    const int16_t* query = q + (int64_t{t} * s.heads + h) * s.head_dim;
    for (int64_t c = 0; c < visible(s, t); ++c) {
      const int8_t* key = k_cache + (c * s.kv_heads + g) * s.head_dim;
      int64_t acc = 0;
      for (int d = 0; d < s.head_dim; ++d) acc += query[d] * key[d];
      scores[row * s.context + c] = saturate(requantize16(acc, 0, law));
    }
  });
}

void softmax_s16_u16_reference(const int16_t* masked, const AttentionShape& s,
                               const uint32_t* exp_high, const uint32_t* exp_low,
                               uint16_t* probabilities) {
  for_each_row(s, [&](int, int t, int64_t row) {
    const int16_t* x = masked + row * s.context;
    const int n = visible(s, t);
    const int max = *std::max_element(x, x + n);
    uint64_t sum = 0;
    for (int c = 0; c < n; ++c) sum += exp_negative(max - x[c], exp_high, exp_low);
    const SoftmaxReciprocal reciprocal = softmax_reciprocal(sum);
    for (int c = 0; c < n; ++c) {
      probabilities[row * s.context + c] =
          softmax_probability(exp_negative(max - x[c], exp_high, exp_low), reciprocal);
    }
  });
}

// out[t, h, d] = requantize16(sum over c of p[h, t, c] * v[g, d, c]).
void context_u16s8_s16_reference(const uint16_t* probabilities, const int8_t* v_cache,
                                 const AttentionShape& s, Requant law, int16_t* out) {
  for_each_row(s, [&](int h, int t, int64_t row) {
    const int64_t g = h / (s.heads / s.kv_heads);
    const uint16_t* p = probabilities + row * s.context;
    for (int d = 0; d < s.head_dim; ++d) {
      const int8_t* value = v_cache + (g * s.head_dim + d) * s.context;
      int64_t acc = 0;
      for (int64_t c = 0; c < visible(s, t); ++c) acc += int64_t{p[c]} * value[c];
      out[(int64_t{t} * s.heads + h) * s.head_dim + d] = saturate(requantize16(acc, 0, law));
    }
  });
}

// Token by token, so that the scores of one are all that there is room for.
void attention_s16s8_s16_reference(const AttentionSegment& segment, const AttentionShape& shape,
                                   const AttentionLaw& law, void* scratch) {
  AttentionShape s = shape;
  s.tokens = 1;
  const int64_t row = int64_t{s.heads} * s.head_dim;
  auto* scores = static_cast<int16_t*>(scratch);
  auto* masked = scores + int64_t{s.heads} * s.context;
  auto* p = reinterpret_cast<uint16_t*>(masked + int64_t{s.heads} * s.context);
  for (int t = 0; t < segment.tokens; ++t) {
    s.position = segment.position + t;
    scores_s16s8_s16_reference(segment.q + t * row, segment.k_cache, s, law.scores, scores);
    mask_s16(scores, s, law.mask, law.mask_zero_point, masked);
    softmax_s16_u16_reference(masked, s, law.exp_high, law.exp_low, p);
    context_u16s8_s16_reference(p, segment.v_cache, s, law.context, segment.out + t * row);
  }
}

}  // namespace qnpu
