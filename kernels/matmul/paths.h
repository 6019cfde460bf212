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

// The rows of B that become one panel: at most kPanelRows of `bytes` bytes, of `words` words.
struct PanelRows {
  const uint8_t* rows;
  int count;
  int64_t bytes;
  int64_t words;
};
void make_panel(const PanelRows& rows, uint8_t* panel);
void make_panel_avx512vnni(const PanelRows& rows, uint8_t* panel);

void matmul_panels_u8s8_s32_avx512vnni(const PanelArgs& args);
void matmul_panels_u8s8_s32_amxint8(const PanelArgs& args);

}  // namespace qnpu
