// Queries as two planes of unsigned bytes (q = 256 * (high - 128) + low) times a block of keys. The
// high plane's sum is 128 * (sum of the key) too large; a row of 128s as one more left operand
// gives just that number.
#include <array>

#include "kernels/attention/paths.h"
#include "kernels/attention/scratch.h"
#include "kernels/pack/pack.h"
#include "kernels/parallel.h"
#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

constexpr int kCols = kRequantCols;
constexpr int kMaxHeadDim = 512;

struct KeyBlock {
  const int8_t* keys;  // the first key of the block
  int n;               // keys in it
  int64_t stride;
};

void multiply(const uint8_t* a, int64_t lda, int m, const KeyBlock& b, int k, int32_t* c, Isa isa) {
  matmul_u8s8_s32({.m = m,
                   .n = b.n,
                   .k = k,
                   .a = a,
                   .lda = lda,
                   .b = reinterpret_cast<const uint8_t*>(b.keys),
                   .ldb = b.stride,
                   .b_bits = 8,
                   .c = c,
                   .ldc = kCols},
                  isa);
}

RequantBlock column_block(const KeyBlock& keys, int head_dim, Requant law, Isa isa) {
  std::array<uint8_t, kMaxHeadDim> ones_128{};
  std::fill_n(ones_128.begin(), head_dim, uint8_t{128});
  std::array<int32_t, kCols> sum_128;
  multiply(ones_128.data(), 0, 1, keys, head_dim, sum_128.data(), isa);
  RequantBlock block;
  for (int j = 0; j < keys.n; ++j) set_requant16(block, j, law, -sum_128[j]);
  return block;
}

// Scores of rows [first, first + m) of all [H, T] against the keys from position c0 on.
void score_rows(const Planes& q, const AttentionShape& s, int64_t first, int m, int c0,
                const KeyBlock& keys, const RequantBlock& block, int16_t* scores, Isa isa) {
  alignas(64) int32_t high[kRowBlock * kCols];
  alignas(64) int32_t low[kRowBlock * kCols];
  multiply(q.high + first * q.stride, q.stride, m, keys, s.head_dim, high, isa);
  multiply(q.low + first * q.stride, q.stride, m, keys, s.head_dim, low, isa);
  for (int r = 0; r < m; ++r) {
    const int n = std::min(keys.n, visible(s, static_cast<int>((first + r) % s.tokens)) - c0);
    if (n <= 0) continue;
    requantize_row_s16(high + r * kCols, low + r * kCols, n, block,
                       scores + (first + r) * s.context + c0, isa);
  }
}

void score_block(const Planes& q, const int8_t* k_cache, const AttentionShape& s, int g, int c0,
                 Requant law, int16_t* scores, Isa isa) {
  const int64_t width = int64_t{s.kv_heads} * s.head_dim;
  const KeyBlock keys = {k_cache + c0 * width + int64_t{g} * s.head_dim,
                         std::min(kCols, s.position + s.tokens - c0), width};
  const RequantBlock block = column_block(keys, s.head_dim, law, isa);
  const int group = s.heads / s.kv_heads;
  const int64_t end = int64_t{g + 1} * group * s.tokens;
  for (int64_t row = int64_t{g} * group * s.tokens; row < end; row += kRowBlock) {
    const int m = static_cast<int>(std::min<int64_t>(kRowBlock, end - row));
    const int last = static_cast<int>((row + m - 1) % s.tokens);
    // Tokens of a block are in order unless it goes over a head's end.
    const bool one_head = row / s.tokens == (row + m - 1) / s.tokens;
    if (one_head && visible(s, last) <= c0) continue;
    score_rows(q, s, row, m, c0, keys, block, scores, isa);
  }
}

}  // namespace

void scores_s16s8_s16(const int16_t* q, const int8_t* k_cache, const AttentionShape& shape,
                      Requant law, int16_t* scores, void* scratch, Isa isa) {
  if (isa == Isa::kReference) return scores_s16s8_s16_reference(q, k_cache, shape, law, scores);
  const AttentionShape s = shape;
  const Planes packed = planes(scratch, s, s.head_dim);
  const int keys = s.position + s.tokens;
  parallel_for(int64_t{s.heads} * s.tokens, [&](int64_t row, int) {
    const int64_t h = row / s.tokens, t = row % s.tokens;
    pack_row_s16(q + (t * s.heads + h) * s.head_dim, s.head_dim, 8,
                 packed.high + row * packed.stride, packed.low + row * packed.stride);
  });
  const int64_t blocks = (keys + kCols - 1) / kCols;
  parallel_for(s.kv_heads * blocks, [&](int64_t i, int) {
    score_block(packed, k_cache, s, static_cast<int>(i / blocks),
                static_cast<int>(i % blocks) * kCols, law, scores, isa);
  });
}

}  // namespace qnpu
