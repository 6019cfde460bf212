// Rows of the mask's sum and of softmax. The exponentials of a row are kept in scratch between the
// two passes.
#include "base/vectorize.h"
#include "kernels/attention/paths.h"
#include "kernels/attention/scratch.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

QNPU_VECTORIZE void mask_row(const int16_t* x, int n, AddLaw law, int32_t zero, int16_t* y) {
  for (int c = 0; c < n; ++c) {
    const int64_t sum = masked16(x[c], law) + zero;
    y[c] = static_cast<int16_t>(std::clamp<int64_t>(sum, -32768, 32767));
  }
}

QNPU_VECTORIZE int row_max(const int16_t* x, int n) {
  int16_t max = x[0];
  for (int c = 1; c < n; ++c) max = std::max(max, x[c]);
  return max;
}

QNPU_VECTORIZE uint64_t exponentials(const int16_t* x, int n, int max, const uint32_t* high,
                                     const uint32_t* low, uint32_t* e) {
  uint64_t sum = 0;
  for (int c = 0; c < n; ++c) {
    const uint32_t value = exp_negative(max - x[c], high, low);
    e[c] = value;
    sum += value;
  }
  return sum;
}

QNPU_VECTORIZE void divide(const uint32_t* e, int n, SoftmaxReciprocal r, uint16_t* p) {
  for (int c = 0; c < n; ++c) p[c] = softmax_probability(e[c], r);
}

QNPU_VECTORIZE uint32_t exponentials16(const int16_t* x, int n, int max, const uint32_t* high,
                                       const uint32_t* low, uint16_t* e) {
  uint32_t sum = 0;  // of at most 2^17 numbers of 15 bits
  for (int c = 0; c < n; ++c) {
    const uint32_t value = exp_negative(max - x[c], high, low);
    e[c] = static_cast<uint16_t>(value);
    sum += value;
  }
  return sum;
}

QNPU_VECTORIZE void divide_to_bytes(const uint16_t* e, int n, SoftmaxReciprocal r, uint8_t* high,
                                    uint8_t* low) {
  for (int c = 0; c < n; ++c) {
    const uint16_t p = softmax_probability(e[c], r);
    high[c] = static_cast<uint8_t>(p >> 8);
    low[c] = static_cast<uint8_t>(p);
  }
}

}  // namespace

void softmax_row(const SoftmaxRow& row, const AttentionLaw& law) {
  mask_row(row.scores, row.n, law.mask, law.mask_zero_point, row.scores);
  const int max = row_max(row.scores, row.n);
  const uint32_t sum = exponentials16(row.scores, row.n, max, law.exp_high, law.exp_low, row.e);
  divide_to_bytes(row.e, row.n, softmax_reciprocal(sum), row.high, row.low);
}

QNPU_VECTORIZE ExpPieces exp_pieces(const AttentionLaw& law) {
  ExpPieces t;
  for (int i = 0; i < 256; ++i) {
    t.low[i] = static_cast<uint16_t>(law.exp_low[i]);
    t.top[i] = static_cast<uint16_t>(law.exp_high[i] >> 16);
    t.bottom[i] = static_cast<uint16_t>(law.exp_high[i]);
  }
  int numbers = 256;
  // high * low >> 30 is zero where high is below 2^15.
  while (numbers > 1 && law.exp_high[numbers - 1] < 1 << 15) --numbers;
  t.groups = (numbers + 63) / 64;
  return t;
}

size_t attention_scratch_bytes(const AttentionShape& s) {
  // Two planes of bytes, or a row of 32-bit exponentials for every second row.
  const size_t rows = std::max<size_t>(size_t{2} * s.heads * s.tokens, 4);
  return 64 + rows * padded_k(std::max(s.context, s.head_dim), 8);
}

void mask_s16(const int16_t* scores, const AttentionShape& shape, AddLaw law,
              int32_t out_zero_point, int16_t* masked) {
  const AttentionShape s = shape;
  parallel_for(int64_t{s.heads} * s.tokens, [&](int64_t row, int) {
    const int seen = visible(s, static_cast<int>(row % s.tokens));
    mask_row(scores + row * s.context, seen, law, out_zero_point, masked + row * s.context);
  });
}

void softmax_s16_u16(const int16_t* masked, const AttentionShape& shape, const uint32_t* exp_high,
                     const uint32_t* exp_low, uint16_t* probabilities, void* scratch, Isa isa) {
  if (isa == Isa::kReference) {
    return softmax_s16_u16_reference(masked, shape, exp_high, exp_low, probabilities);
  }
  const AttentionShape s = shape;
  auto* exponents = reinterpret_cast<uint32_t*>(align64(scratch));
  const auto softmax_row = [&](int64_t row, int worker) {
    const int seen = visible(s, static_cast<int>(row % s.tokens));
    const int16_t* x = masked + row * s.context;
    uint32_t* e = exponents + worker * padded_k(s.context, 8);
    const uint64_t sum = exponentials(x, seen, row_max(x, seen), exp_high, exp_low, e);
    divide(e, seen, softmax_reciprocal(sum), probabilities + row * s.context);
  };
  const int64_t rows = int64_t{s.heads} * s.tokens;
  if (max_threads() <= std::max<int64_t>(rows / 2, 1)) return parallel_for(rows, softmax_row);
  // More threads than scratch has rows of exponentials.
  for (int64_t row = 0; row < rows; ++row) softmax_row(row, 0);
}

}  // namespace qnpu
