// A panel from its rows: sixteen words of sixteen rows at a time, transposed in registers.
#include "kernels/matmul/columns_avx512vnni.h"
#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

// Bytes of a row from `byte` on that are still in it, 64 at most.
__mmask64 mask_of(int64_t left) { return left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1; }

// Words [first, first + 16) of rows [r0, r0 + 16).
void make_block(const PanelRows& x, int r0, int64_t first, uint8_t* panel) {
  const __mmask64 mask = mask_of(x.bytes - 4 * first);
  __m512i v[16];
  for (int r = 0; r < 16; ++r) {
    v[r] = r0 + r < x.count ? _mm512_maskz_loadu_epi8(mask, x.rows + (r0 + r) * x.bytes + 4 * first)
                            : _mm512_setzero_si512();
  }
  transpose16(v);
  const int64_t count = std::min<int64_t>(16, x.words - first);
  for (int64_t w = 0; w < count; ++w) {
    _mm512_storeu_si512(panel + ((first + w) * kPanelRows + r0) * 4, v[w]);
  }
}

}  // namespace

void make_panel_avx512vnni(const PanelRows& x, uint8_t* panel) {
  for (int64_t first = 0; first < x.words; first += 16) {
    make_block(x, 0, first, panel);
    make_block(x, 16, first, panel);
  }
}

}  // namespace qnpu
