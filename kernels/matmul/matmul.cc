#include "kernels/matmul/matmul.h"

#include "base/status.h"
#include "kernels/matmul/paths.h"

namespace qnpu {

void matmul_u8s8_s32(const MatmulArgs& args, Isa isa) {
  QNPU_ASSERT(args.k <= kMaxMatmulK);
  switch (isa) {
    case Isa::kAmxInt8:
      return matmul_u8s8_s32_amxint8(args);
    case Isa::kAvx512Vnni:
      return matmul_u8s8_s32_avx512vnni(args);
    case Isa::kAvx2:
      return matmul_u8s8_s32_avx2(args);
    default:
      return matmul_u8s8_s32_reference(args);
  }
}

}  // namespace qnpu
