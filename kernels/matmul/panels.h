// Weights laid out for the vector units, made once when a model is loaded: panels of 32 rows of B
// (output channels), in which the same four bytes of all 32 rows lie side by side:
//
//   panels[N / 32][K * bits / 32][32][4 bytes]
//
// One register load then serves 16 results, nothing has to be summed across a register, and memory
// is read straight on from the first panel to the last. It is a transposition of 32-bit words
// whatever the weight's width; N is padded to whole panels and K to whole words, with zeros. Four
// bytes hold 8 weights of 4 bits, even ones in the low nibbles: the left operand's bytes are put in
// that order (panel_index).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"

namespace qnpu {

inline constexpr int kPanelRows = 32;

struct PanelArgs {
  int m = 0, n = 0, k = 0;
  const uint8_t* a = nullptr;  // [M, lda], rows of panel_padded_k bytes in panel_index order
  int64_t lda = 0;
  const uint8_t* panels = nullptr;  // of the first of the N columns, a multiple of kPanelRows
  int bits = 8;                     // 8 or 4
  int32_t* c = nullptr;             // [M, ldc]
  int64_t ldc = 0;
};

// Bytes of a row of A; zero from k on.
inline int64_t panel_padded_k(int64_t k) { return (k + 63) / 64 * 64; }
// Where element k of a row of A lies.
inline int64_t panel_index(int64_t k, int bits) {
  return bits == 4 ? k / 8 * 8 + k % 2 * 4 + k % 8 / 2 : k;
}

inline int64_t panel_words(int64_t k, int bits) { return (k * bits + 31) / 32; }
// Of one panel; of a whole weight [N, K].
inline size_t panel_bytes(int64_t k, int bits) {
  return static_cast<size_t>(panel_words(k, bits)) * kPanelRows * 4;
}
size_t panels_bytes(int64_t n, int64_t k, int bits);

// From rows of k * bits / 8 bytes; on all threads. The same for any instruction set.
void make_panels(const uint8_t* weight, int n, int k, int bits, uint8_t* panels, Isa isa);

// Whether an instruction set has a kernel for this layout.
inline bool takes_panels(Isa isa) { return isa == Isa::kAvx512Vnni || isa == Isa::kAmxInt8; }

// C = A * B^T as matmul_u8s8_s32 has it, for those. On the calling thread.
void matmul_panels_u8s8_s32(const PanelArgs& args, Isa isa);

}  // namespace qnpu
