// Probabilities as two planes of unsigned bytes (p = 256 * high + low), zero where a token does not
// see, times the transposed value cache.
#include "kernels/attention/paths.h"
#include "kernels/attention/scratch.h"
#include "kernels/pack/pack.h"
#include "kernels/parallel.h"
#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

constexpr int kCols = kRequantCols;

// Rows [first, first + m) of one head times the values of dimensions [d0, d0 + n) of KV head g.
void context_rows(const Planes& p, const int8_t* v_cache, const AttentionShape& s, int64_t first,
                  int m, int g, int d0, const RequantBlock& block, int16_t* out, Isa isa) {
  const int n = std::min(kCols, s.head_dim - d0);
  alignas(64) int32_t acc[2][kRowBlock * kCols];
  MatmulArgs args = {.m = m,
                     .n = n,
                     .k = visible(s, static_cast<int>((first + m - 1) % s.tokens)),
                     .lda = p.stride,
                     .ldb = s.context,
                     .b_bits = 8,
                     .ldc = kCols};
  args.b = reinterpret_cast<const uint8_t*>(v_cache) + (int64_t{g} * s.head_dim + d0) * s.context;
  for (int plane = 0; plane < 2; ++plane) {
    args.a = (plane == 0 ? p.high : p.low) + first * p.stride;
    args.c = acc[plane];
    matmul_u8s8_s32(args, isa);
  }
  for (int r = 0; r < m; ++r) {
    const int64_t h = (first + r) / s.tokens, t = (first + r) % s.tokens;
    requantize_row_s16(acc[0] + r * kCols, acc[1] + r * kCols, n, block,
                       out + (t * s.heads + h) * s.head_dim + d0, isa);
  }
}

// All rows of query head h, cut so that the last row of each cut sees the most.
void context_head(const Planes& p, const int8_t* v_cache, const AttentionShape& s, int h, int d0,
                  const RequantBlock& block, int16_t* out, Isa isa) {
  const int g = h / (s.heads / s.kv_heads);
  for (int t = 0; t < s.tokens; t += kRowBlock) {
    const int m = std::min(kRowBlock, s.tokens - t);
    context_rows(p, v_cache, s, int64_t{h} * s.tokens + t, m, g, d0, block, out, isa);
  }
}

}  // namespace

void context_u16s8_s16(const uint16_t* probabilities, const int8_t* v_cache,
                       const AttentionShape& shape, Requant law, int16_t* out, void* scratch,
                       Isa isa) {
  if (isa == Isa::kReference) {
    return context_u16s8_s16_reference(probabilities, v_cache, shape, law, out);
  }
  const AttentionShape s = shape;
  const Planes packed = planes(scratch, s, s.position + s.tokens);
  RequantBlock block;
  for (int j = 0; j < kCols; ++j) set_requant16(block, j, law, 0);
  parallel_for(int64_t{s.heads} * s.tokens, [&](int64_t row, int) {
    const int seen = visible(s, static_cast<int>(row % s.tokens));
    uint8_t* high = packed.high + row * packed.stride;
    uint8_t* low = packed.low + row * packed.stride;
    pack_row_u16(probabilities + row * s.context, seen, 8, high, low);
    const int64_t written = padded_k(seen, 8);
    std::fill(high + written, high + packed.stride, uint8_t{0});
    std::fill(low + written, low + packed.stride, uint8_t{0});
  });
  const int blocks = (s.head_dim + kCols - 1) / kCols;
  parallel_for(int64_t{s.heads} * blocks, [&](int64_t i, int) {
    context_head(packed, v_cache, s, static_cast<int>(i / blocks),
                 static_cast<int>(i % blocks) * kCols, block, out, isa);
  });
}

}  // namespace qnpu
