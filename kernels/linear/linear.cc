// The fast path: x becomes unsigned bytes in scratch, then each thread takes blocks of output
// columns, multiplies and requantizes them.
//
//   8 bits:   x + 128; the sum is 128 * row_sum too large.
//   16 bits:  x = 256 * (high - 128) + low, two planes of unsigned bytes; the sum of the high plane
//             is 128 * row_sum too large, and (256 * high + low) >> 8 = high + (low >> 8).
#include "kernels/linear/linear.h"

#include <algorithm>

#include "kernels/linear/paths.h"
#include "kernels/matmul/matmul.h"
#include "kernels/pack/pack.h"
#include "kernels/parallel.h"
#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

constexpr int kCols = kRequantCols;  // columns of a block
constexpr int kRows = 256;           // rows of a block of accumulators
constexpr int kPackedRows = 16;      // rows that a thread packs at once

uint8_t* aligned(void* scratch) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
}

RequantBlock column_block(const LinearWeights& w, int n0, int n, bool wide) {
  RequantBlock block;
  for (int j = 0; j < n; ++j) {
    const int c = n0 + j;
    const int64_t bias = w.bias != nullptr ? w.bias[c] : 0;
    const auto offset = static_cast<int32_t>(bias - int64_t{128} * w.row_sum[c]);
    (wide ? set_requant16 : set_requant8)(block, j, {w.mantissa[c], w.shift[c]}, offset);
  }
  return block;
}

// Accumulators of rows [i, i + m) of a plane and columns [n0, n0 + n).
void accumulate(const uint8_t* plane, int i, int m, const LinearWeights& w, int n0, int n,
                int32_t* c, Isa isa) {
  const int64_t lda = padded_k(w.k, w.bits);
  const int64_t ldb = int64_t{w.k} * w.bits / 8;
  matmul_u8s8_s32({.m = m,
                   .n = n,
                   .k = w.k,
                   .a = plane + i * lda,
                   .lda = lda,
                   .b = w.weight + n0 * ldb,
                   .ldb = ldb,
                   .b_bits = w.bits,
                   .c = c,
                   .ldc = kCols},
                  isa);
}

void columns_s8(const uint8_t* x, int m, const LinearWeights& w, int n0, int8_t* y, Isa isa) {
  const int n = std::min(kCols, w.n - n0);
  const RequantBlock block = column_block(w, n0, n, false);
  alignas(64) int32_t acc[kRows * kCols];
  for (int i = 0; i < m; i += kRows) {
    const int rows = std::min(kRows, m - i);
    accumulate(x, i, rows, w, n0, n, acc, isa);
    for (int r = 0; r < rows; ++r) {
      requantize_row_s8(acc + r * kCols, n, block, y + int64_t{i + r} * w.n + n0, isa);
    }
  }
}

void columns_s16(const uint8_t* high, const uint8_t* low, int m, const LinearWeights& w, int n0,
                 int16_t* y, Isa isa) {
  const int n = std::min(kCols, w.n - n0);
  const RequantBlock block = column_block(w, n0, n, true);
  alignas(64) int32_t acc_high[kRows * kCols];
  alignas(64) int32_t acc_low[kRows * kCols];
  for (int i = 0; i < m; i += kRows) {
    const int rows = std::min(kRows, m - i);
    accumulate(high, i, rows, w, n0, n, acc_high, isa);
    accumulate(low, i, rows, w, n0, n, acc_low, isa);
    for (int r = 0; r < rows; ++r) {
      requantize_row_s16(acc_high + r * kCols, acc_low + r * kCols, n, block,
                         y + int64_t{i + r} * w.n + n0, isa);
    }
  }
}

}  // namespace

size_t linear_scratch_bytes(int m, int n, int k) {
  (void)n;
  return 64 + 2 * static_cast<size_t>(m) * padded_k(k, 4);
}

void linear_s8(const int8_t* x, int m, const LinearWeights& w, int8_t* y, void* scratch, Isa isa) {
  if (isa == Isa::kReference) return linear_s8_reference(x, m, w, y);
  uint8_t* packed = aligned(scratch);
  const int64_t lda = padded_k(w.k, w.bits);
  parallel_ranges(m, kPackedRows, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) pack_row_s8(x + i * w.k, w.k, w.bits, packed + i * lda);
  });
  parallel_ranges(w.n, kCols, [&](int64_t n0, int64_t) {
    columns_s8(packed, m, w, static_cast<int>(n0), y, isa);
  });
}

void linear_s16(const int16_t* x, int m, const LinearWeights& w, int16_t* y, void* scratch,
                Isa isa) {
  if (isa == Isa::kReference) return linear_s16_reference(x, m, w, y);
  const int64_t lda = padded_k(w.k, w.bits);
  uint8_t* high = aligned(scratch);
  uint8_t* low = high + m * lda;
  parallel_ranges(m, kPackedRows, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      pack_row_s16(x + i * w.k, w.k, w.bits, high + i * lda, low + i * lda);
    }
  });
  parallel_ranges(w.n, kCols, [&](int64_t n0, int64_t) {
    columns_s16(high, low, m, w, static_cast<int>(n0), y, isa);
  });
}

}  // namespace qnpu
