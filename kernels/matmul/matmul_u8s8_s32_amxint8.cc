// The matmul of tiles.h on AMX. Configuration belongs to a thread and is set and released by every
// call, which costs tens of cycles beside hundreds of thousands; released tiles also spare the
// system their eight kilobytes at a change of threads.
//
// The instructions are written out, since the compiler's intrinsics want literal tile numbers and
// do not tell that they read and write memory.
#include "kernels/matmul/columns_avx512vnni.h"
#include "kernels/matmul/paths.h"
#include "kernels/matmul/tiles.h"

namespace qnpu {
namespace {

struct AmxTiles {
  void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  void release() { asm volatile("tilerelease"); }

  template <int kTile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  void load(const void* base, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  void store(void* base, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(base), "r"(stride), "i"(kTile)
                 : "memory");
  }
  template <int kSums, int kLeft, int kRight>
  void dpbusd() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kLeft), "i"(kRight));
  }

  template <int kBits>
  void load_columns(const MatmulArgs& x, int64_t k0, int n, TileColumns& columns) {
    qnpu::load_columns<kTilesPart, kBits>(x, k0, n, columns);
  }
};

}  // namespace

void matmul_u8s8_s32_amxint8(const MatmulArgs& x) {
  if (x.m < kMinColumnsRows) return matmul_u8s8_s32_avx512vnni(x);
  AmxTiles tiles;
  x.b_bits == 4 ? matmul_by_tiles<4>(x, tiles) : matmul_by_tiles<8>(x, tiles);
}

void matmul_panels_u8s8_s32_amxint8(const PanelArgs& x) {
  if (x.m < kMinColumnsRows) return matmul_panels_u8s8_s32_avx512vnni(x);
  AmxTiles tiles;
  x.bits == 4 ? panels_by_tiles<4>(x, tiles) : panels_by_tiles<8>(x, tiles);
}

}  // namespace qnpu
