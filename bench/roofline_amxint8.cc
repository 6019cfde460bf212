// Four tiles of sums, two of each operand, as in kernels/matmul/tiles.h; nothing is loaded.
#include "bench/roofline.h"
#include "kernels/matmul/tiles.h"

namespace qnpu {

int64_t multiply_adds_amxint8(int64_t count) {
  constexpr int64_t kEach = int64_t{4} * 16 * 16 * 64;
  const TileConfig config = tile_config(32, 32);
  asm volatile("ldtilecfg %0" : : "m"(config));  // which also makes the tiles zero
  const int64_t rounds = count / kEach + 1;
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbusd %tmm6, %tmm4, %tmm0\n\t"
        "tdpbusd %tmm7, %tmm4, %tmm1\n\t"
        "tdpbusd %tmm6, %tmm5, %tmm2\n\t"
        "tdpbusd %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
  return rounds * kEach;
}

}  // namespace qnpu
