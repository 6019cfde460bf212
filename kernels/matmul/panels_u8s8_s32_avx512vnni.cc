// Tiles of 1 to 8 rows by one panel: four bytes of A, broadcast, against two registers that
// hold the same four bytes of 16 columns each.
//
// The first tile of a panel has its weights from memory, and with few rows that takes the time: it
// asks for them ahead, which also carries the stream over the borders of pages. With so many rows
// that sums take as long as memory does, it asks far ahead for the second cache (the first one's
// queue of misses is short, and full at that pace), and near for the first.
//
// 4 bits: a nibble moved to the upper half of its byte is 16 times its signed value, so no sign
// extension is needed; the sums are divided by 16 at the end (matmul_u8s8_s32_avx512vnni.cc).
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

__m512i broadcast4(const uint8_t* a) {
  int32_t four = 0;
  std::memcpy(&four, a, 4);
  return _mm512_set1_epi32(four);
}

template <int kRows>
[[gnu::always_inline]] inline void ask(const uint8_t* word) {
  constexpr int64_t kAhead = kRows < 4 ? 4096 : 1024, kFar = 16384;  // bytes
  for (const int line : {0, 64}) {
    if constexpr (kRows >= 4) {
      _mm_prefetch(reinterpret_cast<const char*>(word + kFar + line), _MM_HINT_T1);
    }
    _mm_prefetch(reinterpret_cast<const char*>(word + kAhead + line), _MM_HINT_T0);
  }
}

// Sums of kRows rows: the left columns of the panel and the right ones.
template <int kRows>
struct Sums {
  __m512i left[kRows], right[kRows];
};

template <int kRows>
[[gnu::always_inline]] inline void add(const uint8_t* a, int64_t lda, __m512i left, __m512i right,
                                       Sums<kRows>& sums) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const __m512i lhs = broadcast4(a + i * lda);
    sums.left[i] = _mm512_dpbusd_epi32(sums.left[i], lhs, left);
    sums.right[i] = _mm512_dpbusd_epi32(sums.right[i], lhs, right);
  }
}

// One word of every column: four weights of 8 bits, or eight of 4.
template <int kRows, int kBits, bool kAsk>
[[gnu::always_inline]] inline void step(const uint8_t* a, int64_t lda, const uint8_t* word,
                                        Sums<kRows>& even, Sums<kRows>& odd) {
  const __m512i w0 = _mm512_loadu_si512(word), w1 = _mm512_loadu_si512(word + 64);
  if constexpr (kAsk) ask<kRows>(word);
  if constexpr (kBits == 8) {
    add<kRows>(a, lda, w0, w1, even);
  } else {
    const __m512i high = _mm512_set1_epi8(static_cast<char>(0xf0));
    add<kRows>(a, lda, _mm512_and_si512(_mm512_slli_epi16(w0, 4), high),
               _mm512_and_si512(_mm512_slli_epi16(w1, 4), high), even);
    add<kRows>(a + 4, lda, _mm512_and_si512(w0, high), _mm512_and_si512(w1, high), odd);
  }
}

template <int kRows>
void clear(Sums<kRows>& sums) {
  for (int i = 0; i < kRows; ++i) sums.left[i] = sums.right[i] = _mm512_setzero_si512();
}

template <int kBits>
void store(int32_t* c, __mmask16 mask, __m512i sum) {
  _mm512_mask_storeu_epi32(c, mask, kBits == 4 ? _mm512_srai_epi32(sum, 4) : sum);
}

// Few rows have few sums, and each is a chain of additions: `odd` sums break it in two.
template <int kRows, int kBits, bool kAsk>
void tile(const PanelArgs& x, int m, int n) {
  constexpr int kSplit = kRows <= 4 ? 2 : 1;
  constexpr int kWord = 32 / kBits;  // elements of A
  constexpr int64_t kWordBytes = kPanelRows * 4;
  const uint8_t* b = x.panels + n / kPanelRows * panel_bytes(x.k, kBits);
  const uint8_t* a = x.a + m * x.lda;
  Sums<kRows> sums[kSplit];
  for (auto& s : sums) clear(s);
  Sums<kRows>&first = sums[0], &second = sums[kSplit - 1];
  const int64_t words = panel_words(x.k, kBits);
  int64_t word = 0;
  for (; word + 2 <= words; word += 2) {
    step<kRows, kBits, kAsk>(a + word * kWord, x.lda, b + word * kWordBytes, first, second);
    step<kRows, kBits, kAsk>(a + (word + 1) * kWord, x.lda, b + (word + 1) * kWordBytes,
                             kBits == 4 ? first : second, second);
  }
  if (word < words) {
    step<kRows, kBits, kAsk>(a + word * kWord, x.lda, b + word * kWordBytes, first, second);
  }
  const auto mask = static_cast<__mmask32>((uint64_t{1} << std::min(32, x.n - n)) - 1);
  for (int i = 0; i < kRows; ++i) {
    __m512i s0 = sums[0].left[i], s1 = sums[0].right[i];
    if constexpr (kSplit == 2) {
      s0 = _mm512_add_epi32(s0, sums[1].left[i]);
      s1 = _mm512_add_epi32(s1, sums[1].right[i]);
    }
    int32_t* c = x.c + (m + i) * x.ldc + n;
    store<kBits>(c, static_cast<__mmask16>(mask), s0);
    store<kBits>(c + 16, static_cast<__mmask16>(mask >> 16), s1);
  }
}

// For 1 to 8 rows.
using Tile = void (*)(const PanelArgs& x, int m, int n);
template <int kBits, bool kAsk>
constexpr Tile kTiles[] = {tile<1, kBits, kAsk>, tile<2, kBits, kAsk>, tile<3, kBits, kAsk>,
                           tile<4, kBits, kAsk>, tile<5, kBits, kAsk>, tile<6, kBits, kAsk>,
                           tile<7, kBits, kAsk>, tile<8, kBits, kAsk>};

template <int kBits>
void matmul(const PanelArgs& x) {
  for (int n = 0; n < x.n; n += kPanelRows) {
    kTiles<kBits, true>[std::min(8, x.m) - 1](x, 0, n);
    for (int m = 8; m < x.m; m += 8) kTiles<kBits, false>[std::min(8, x.m - m) - 1](x, m, n);
  }
}

}  // namespace

void matmul_panels_u8s8_s32_avx512vnni(const PanelArgs& x) {
  x.bits == 4 ? matmul<4>(x) : matmul<8>(x);
}

}  // namespace qnpu
