// The paths behind matmul.h.
#pragma once

#include "kernels/matmul/matmul.h"
#include "kernels/matmul/panels.h"

namespace qnpu {

void matmul_u8s8_s32_reference(const MatmulArgs& args);
void matmul_u8s8_s32_avx2(const MatmulArgs& args);
void matmul_u8s8_s32_avx512vnni(const MatmulArgs& args);

// Pays from some ten rows of A on.
inline constexpr int kMinColumnsRows = 12;
void matmul_columns_u8s8_s32_avx512vnni(const MatmulArgs& args);
void matmul_u8s8_s32_amxint8(const MatmulArgs& args);

void matmul_panels_u8s8_s32_avx512vnni(const PanelArgs& args);
void matmul_panels_u8s8_s32_amxint8(const PanelArgs& args);

}  // namespace qnpu
