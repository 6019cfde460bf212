// The fast path: x becomes unsigned bytes in scratch, then each thread takes blocks of output
// columns, multiplies and requantizes them.
//
//   8 bits:   x + 128; the sum is 128 * row_sum too large.
//   16 bits:  x = 256 * (high - 128) + low, two rows of unsigned bytes, one behind the other; the
//             high one's sum is 128 * row_sum too large, and
//             (256 * high + low) >> 8 = high + (low >> 8).
#include "kernels/linear/linear.h"

#include <algorithm>

#include "kernels/linear/paths.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/panels.h"
#include "kernels/pack/pack.h"
#include "kernels/parallel.h"
#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

constexpr int kCols = kRequantCols;  // columns of a block: a panel
constexpr int kRows = 256;           // rows of a block of accumulators
constexpr int kPackedRows = 16;      // rows that a thread packs at once
static_assert(kCols == kPanelRows);

uint8_t* aligned(void* scratch) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
}

bool by_panels(const LinearWeights& w, Isa isa) { return w.panels != nullptr && takes_panels(isa); }

// The left operand: of each row of x its bytes, or its high and its low ones.
struct Operand {
  const uint8_t* rows;
  int64_t stride;
};

void pack_row(const int8_t* x, int k, int order, uint8_t* row, int64_t) {
  pack_row_s8(x, k, order, row);
}
void pack_row(const int16_t* x, int k, int order, uint8_t* high, int64_t stride) {
  pack_row_s16(x, k, order, high, high + stride);
}

// Rows are in the order that the weights' layout asks for.
template <typename T>
Operand pack(const T* x, int m, const LinearWeights& w, void* scratch, Isa isa) {
  constexpr int64_t kPlanes = sizeof(T);
  uint8_t* rows = aligned(scratch);
  const bool panels = by_panels(w, isa);
  const int order = panels ? 8 : w.bits;
  const int64_t stride = padded_k(w.k, order);
  parallel_ranges(m, kPackedRows, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      uint8_t* row = rows + kPlanes * i * stride;
      pack_row(x + i * w.k, w.k, order, row, stride);
      if (panels && w.bits == 4) to_panel_order(row, kPlanes * stride);
    }
  });
  return {rows, stride};
}

// Accumulators [m, kCols] of m rows of the operand and columns [n0, n0 + n).
void accumulate(Operand a, int m, const LinearWeights& w, int n0, int n, int32_t* c, Isa isa) {
  if (by_panels(w, isa)) {
    const uint8_t* panels = w.panels + n0 / kPanelRows * panel_bytes(w.k, w.bits);
    return matmul_panels_u8s8_s32({.m = m,
                                   .n = n,
                                   .k = w.k,
                                   .a = a.rows,
                                   .lda = a.stride,
                                   .panels = panels,
                                   .bits = w.bits,
                                   .c = c,
                                   .ldc = kCols},
                                  isa);
  }
  const int64_t ldb = int64_t{w.k} * w.bits / 8;
  matmul_u8s8_s32({.m = m,
                   .n = n,
                   .k = w.k,
                   .a = a.rows,
                   .lda = a.stride,
                   .b = w.weight + n0 * ldb,
                   .ldb = ldb,
                   .b_bits = w.bits,
                   .c = c,
                   .ldc = kCols},
                  isa);
}

ColumnLaws laws_from(const LinearWeights& w, int n0) {
  return {w.mantissa + n0, w.shift + n0, w.row_sum + n0, w.bias == nullptr ? nullptr : w.bias + n0};
}

// Columns [n0, n0 + kCols) of all rows.
void columns(Operand x, int m, const LinearWeights& w, int n0, int8_t* y, Isa isa) {
  const int n = std::min(kCols, w.n - n0);
  RequantBlock block;
  set_requant8(block, n, laws_from(w, n0));
  alignas(64) int32_t acc[kRows * kCols];
  for (int i = 0; i < m; i += kRows) {
    const int rows = std::min(kRows, m - i);
    accumulate({x.rows + i * x.stride, x.stride}, rows, w, n0, n, acc, isa);
    for (int r = 0; r < rows; ++r) {
      requantize_row_s8(acc + r * kCols, n, block, y + int64_t{i + r} * w.n + n0, isa);
    }
  }
}

void columns(Operand x, int m, const LinearWeights& w, int n0, int16_t* y, Isa isa) {
  const int n = std::min(kCols, w.n - n0);
  RequantBlock block;
  set_requant16(block, n, laws_from(w, n0));
  alignas(64) int32_t acc[kRows * kCols];
  for (int i = 0; i < m; i += kRows / 2) {
    const int rows = std::min(kRows / 2, m - i);
    accumulate({x.rows + 2 * i * x.stride, x.stride}, 2 * rows, w, n0, n, acc, isa);
    for (int r = 0; r < rows; ++r) {
      requantize_row_s16(acc + 2 * r * kCols, acc + (2 * r + 1) * kCols, n, block,
                         y + int64_t{i + r} * w.n + n0, isa);
    }
  }
}

// Few columns at a time for few rows would be more claiming than work.
int64_t grain(const LinearWeights& w) {
  const int64_t even = w.n / (int64_t{4} * max_threads());
  return std::max<int64_t>(kCols, even / kCols * kCols);
}

template <typename T>
void linear(const T* x, int m, const LinearWeights& w, T* y, void* scratch, Isa isa) {
  const Operand operand = pack(x, m, w, scratch, isa);
  parallel_ranges(w.n, grain(w), [&](int64_t n0, int64_t end) {
    for (; n0 < end; n0 += kCols) columns(operand, m, w, static_cast<int>(n0), y, isa);
  });
}

}  // namespace

size_t linear_scratch_bytes(int m, int k) {
  return 64 + 2 * static_cast<size_t>(m) * padded_k(k, 4);
}

void linear_s8(const int8_t* x, int m, const LinearWeights& w, int8_t* y, void* scratch, Isa isa) {
  if (isa == Isa::kReference) return linear_s8_reference(x, m, w, y);
  linear(x, m, w, y, scratch, isa);
}

void linear_s16(const int16_t* x, int m, const LinearWeights& w, int16_t* y, void* scratch,
                Isa isa) {
  if (isa == Isa::kReference) return linear_s16_reference(x, m, w, y);
  linear(x, m, w, y, scratch, isa);
}

}  // namespace qnpu
