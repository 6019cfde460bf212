// The matmul by tiles of AMX: sixteen rows of 64 bytes each, of which `dpbusd` multiplies a tile of
// A (16 rows x 64 of K, u8) by a tile of B (16 groups of K x 16 columns x 4 bytes, s8) and adds to
// 16 x 16 sums. Blocks of C are 32 x 32: four tiles of sums, two of A, two of B, so that each tile
// that is loaded serves twice. At the right and lower edges the tiles are configured smaller, and
// nothing outside the matrices is touched; K needs no care, since A and the columns are padded with
// zeros.
//
// The body is a template over the instructions, so that a plain implementation of them can be held
// against the reference on any machine:
//
//   configure(const TileConfig&)   sizes of the eight tiles, which become zero
//   release()
//   zero<t>()  load<t>(base, stride)  store<t>(base, stride)
//   dpbusd<c, a, b>()              tile c += tile a * tile b
//   load_columns<kBits>(x, k0, n, columns)   32 rows of B, from K = k0 on, as columns.h has them
//
// Where the weights lie in panels (panels.h), those of 8 bits are columns already, and those of 4
// bits become columns by two operations a register, without a transposition.
//
// 4 bits: the columns hold 16 times the weights; the last part of K divides by 16.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/matmul/columns.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/panels.h"

namespace qnpu {

inline constexpr int kTileRows = 16;
inline constexpr int kTileBytes = 64;    // of a row
inline constexpr int kTilesPart = 1024;  // of K: 32 kB of columns
using TileColumns = Columns<kTilesPart>;

// As ldtilecfg reads it.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Which tile is what: sums 0 .. 3 by rows, A from 4, B from 6.
inline constexpr int kTileA = 4, kTileB = 6;

// For a block of at most 32 x 32 sums. A tile without rows or without columns is not configured.
inline TileConfig tile_config(int rows, int cols) {
  TileConfig config;
  const auto set = [&config](int tile, int tile_rows, int row_bytes) {
    if (tile_rows <= 0 || row_bytes <= 0) return;
    config.rows[tile] = static_cast<uint8_t>(std::min(tile_rows, kTileRows));
    config.row_bytes[tile] = static_cast<uint16_t>(std::min(row_bytes, kTileBytes));
  };
  for (int i = 0; i < 2; ++i) {
    const int top = rows - kTileRows * i, left = 4 * cols - kTileBytes * i;
    set(kTileA + i, top, kTileBytes);
    set(kTileB + i, kTileRows, left);
    for (int j = 0; j < 2; ++j) set(2 * i + j, top, 4 * cols - kTileBytes * j);
  }
  return config;
}

struct TileBlock {
  int m = 0, n = 0, rows = 0, cols = 0;  // of C
};

template <typename Function>
[[gnu::always_inline]] inline void each_sum_tile(bool lower, bool right, const Function& run) {
  run.template operator()<0>(0, 0);
  if (right) run.template operator()<1>(0, 1);
  if (lower) run.template operator()<2>(1, 0);
  if (lower && right) run.template operator()<3>(1, 1);
}

// Sums of one block over one part of K.
template <bool kLower, bool kRight, typename Tiles>
void add_products(const MatmulArgs& x, const TileBlock& block, int64_t k0, int64_t steps,
                  const TileColumns& columns, Tiles& tiles) {
  const uint8_t* a = x.a + block.m * x.lda + k0;
  for (int64_t step = 0; step < steps; ++step, a += kTileBytes) {
    const auto& group = columns.group[kTileRows * step];
    tiles.template load<kTileA>(a, x.lda);
    tiles.template load<kTileB>(group[0], sizeof(group));
    tiles.template dpbusd<0, kTileA, kTileB>();
    if constexpr (kRight) {
      tiles.template load<kTileB + 1>(group[1], sizeof(group));
      tiles.template dpbusd<1, kTileA, kTileB + 1>();
    }
    if constexpr (kLower) {
      tiles.template load<kTileA + 1>(a + kTileRows * x.lda, x.lda);
      tiles.template dpbusd<2, kTileA + 1, kTileB>();
    }
    if constexpr (kLower && kRight) tiles.template dpbusd<3, kTileA + 1, kTileB + 1>();
  }
}

template <bool kLower, bool kRight, int kBits, typename Tiles>
void tile_block(const MatmulArgs& x, const TileBlock& block, const ColumnsPart& part, int64_t steps,
                const TileColumns& columns, Tiles& tiles) {
  int32_t* c = x.c + block.m * x.ldc + block.n;
  const auto stride = static_cast<int64_t>(sizeof(int32_t)) * x.ldc;
  const auto sums = [&](int i, int j) { return c + kTileRows * (i * x.ldc + j); };
  each_sum_tile(kLower, kRight, [&]<int kTile>(int i, int j) {
    part.first ? tiles.template zero<kTile>() : tiles.template load<kTile>(sums(i, j), stride);
  });
  add_products<kLower, kRight>(x, block, part.k0, steps, columns, tiles);
  each_sum_tile(kLower, kRight,
                [&]<int kTile>(int i, int j) { tiles.template store<kTile>(sums(i, j), stride); });
  if (kBits == 8 || !part.last) return;
  for (int i = 0; i < block.rows; ++i) {
    for (int j = 0; j < block.cols; ++j) c[i * x.ldc + j] >>= 4;
  }
}

template <int kBits, typename Tiles>
void any_block(const MatmulArgs& x, const TileBlock& block, const ColumnsPart& part, int64_t steps,
               const TileColumns& columns, Tiles& tiles) {
  const bool lower = block.rows > kTileRows, right = block.cols > kTileRows;
  if (lower && right) return tile_block<true, true, kBits>(x, block, part, steps, columns, tiles);
  if (lower) return tile_block<true, false, kBits>(x, block, part, steps, columns, tiles);
  if (right) return tile_block<false, true, kBits>(x, block, part, steps, columns, tiles);
  tile_block<false, false, kBits>(x, block, part, steps, columns, tiles);
}

// `columns_at(k0, n)` gives the columns of a part of K, whose operand A is padded to `block` bytes.
template <int kBits, typename Tiles, typename ColumnsAt>
void walk_blocks(const MatmulArgs& x, int64_t block_bytes, Tiles& tiles,
                 const ColumnsAt& columns_at) {
  int rows = 0, cols = 0;  // that the tiles are configured for
  for (int n = 0; n < x.n; n += kColumns) {
    for (int64_t k0 = 0; k0 < x.k; k0 += kTilesPart) {
      const ColumnsPart part = columns_part<kTilesPart>(x.k, k0);
      const int64_t steps = (part.size + block_bytes - 1) / block_bytes * block_bytes / kTileBytes;
      const TileColumns& columns = columns_at(k0, n);
      for (int m = 0; m < x.m; m += 2 * kTileRows) {
        const TileBlock block = {m, n, std::min(2 * kTileRows, x.m - m),
                                 std::min(kColumns, x.n - n)};
        if (block.rows != rows || block.cols != cols) {
          rows = block.rows, cols = block.cols;
          tiles.configure(tile_config(rows, cols));
        }
        any_block<kBits>(x, block, part, steps, columns, tiles);
      }
    }
  }
  tiles.release();
}

template <int kBits, typename Tiles>
void matmul_by_tiles(const MatmulArgs& x, Tiles& tiles) {
  TileColumns columns;
  walk_blocks<kBits>(x, kBits == 4 ? 128 : 64, tiles, [&](int64_t k0, int n) -> const TileColumns& {
    tiles.template load_columns<kBits>(x, k0, n, columns);
    return columns;
  });
}

// From words of 4-bit weights: even nibbles, then odd ones, as the operand has them. What lies past
// the panel's end is not read; it meets zeros of A.
inline void unpack_panel(const uint8_t* words, int64_t count, TileColumns& columns) {
  for (int64_t w = 0; w < count; ++w) {
    const uint8_t* from = words + w * kPanelRows * 4;
    auto* even = reinterpret_cast<uint8_t*>(columns.group[2 * w]);
    auto* odd = reinterpret_cast<uint8_t*>(columns.group[2 * w + 1]);
    for (int i = 0; i < kPanelRows * 4; ++i) {
      even[i] = static_cast<uint8_t>(from[i] << 4);
      odd[i] = from[i] & 0xf0;
    }
  }
}

template <int kBits, typename Tiles>
void panels_by_tiles(const PanelArgs& p, Tiles& tiles) {
  const MatmulArgs x = {
      .m = p.m, .n = p.n, .k = p.k, .a = p.a, .lda = p.lda, .c = p.c, .ldc = p.ldc};
  TileColumns columns;
  const int64_t words = panel_words(p.k, kBits);
  walk_blocks<kBits>(x, kTileBytes, tiles, [&](int64_t k0, int n) -> const TileColumns& {
    const int64_t first = k0 * kBits / 32;
    const int64_t count = std::min<int64_t>(kTilesPart * kBits / 32, words - first);
    const uint8_t* panel = p.panels + n / kPanelRows * panel_bytes(p.k, kBits);
    const uint8_t* at = panel + first * kPanelRows * 4;
    if constexpr (kBits == 4) {
      unpack_panel(at, count, columns);
    } else {
      std::copy_n(at, count * kPanelRows * 4, reinterpret_cast<uint8_t*>(columns.group));
    }
    return columns;
  });
}

}  // namespace qnpu
