#include "kernels/matmul/panels.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "kernels/matmul/paths.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

// Word `word` of a row of `bytes` bytes; what is past its end is zero.
uint32_t word_of(const uint8_t* row, int64_t bytes, int64_t word) {
  uint32_t value = 0;
  const int64_t left = std::min<int64_t>(4, bytes - 4 * word);
  if (left > 0) std::memcpy(&value, row + 4 * word, static_cast<size_t>(left));
  return value;
}

}  // namespace

void make_panel(const PanelRows& x, uint8_t* panel) {
  for (int r = 0; r < kPanelRows; ++r) {
    for (int64_t word = 0; word < x.words; ++word) {
      const uint32_t value = r < x.count ? word_of(x.rows + r * x.bytes, x.bytes, word) : 0;
      std::memcpy(panel + (word * kPanelRows + r) * 4, &value, 4);
    }
  }
}

size_t panels_bytes(int64_t n, int64_t k, int bits) {
  return static_cast<size_t>((n + kPanelRows - 1) / kPanelRows) * panel_bytes(k, bits);
}

void make_panels(const uint8_t* weight, int n, int k, int bits, uint8_t* panels, Isa isa) {
  const int64_t bytes = int64_t{k} * bits / 8;
  const int64_t words = panel_words(k, bits);
  const auto size = static_cast<int64_t>(panel_bytes(k, bits));
  const int64_t count = static_cast<int64_t>(panels_bytes(n, k, bits)) / size;
  const auto make = takes_panels(isa) ? make_panel_avx512vnni : make_panel;
  parallel_ranges(count, 2, [&](int64_t p, int64_t end) {
    for (; p < end; ++p) {
      const auto rows = static_cast<int>(std::min<int64_t>(n - p * kPanelRows, kPanelRows));
      make({weight + p * kPanelRows * bytes, rows, bytes, words}, panels + p * size);
    }
  });
}

void matmul_panels_u8s8_s32(const PanelArgs& args, Isa isa) {
  QNPU_ASSERT(takes_panels(isa) && args.k <= kMaxMatmulK);
  isa == Isa::kAmxInt8 ? matmul_panels_u8s8_s32_amxint8(args)
                       : matmul_panels_u8s8_s32_avx512vnni(args);
}

}  // namespace qnpu
