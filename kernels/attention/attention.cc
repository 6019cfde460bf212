// Tiles of at most kTileRows query rows that share a KV head. A tile's scores are a strip of rows
// in the scratch of its thread; they become probabilities there, as two planes of bytes, and those
// meet the values. So memory grows with the context, never with its square, and keys and values are
// read once for all heads of a group and all tokens of a tile.
//
// Row i of a group is token i / G, head i % G, G = heads / kv_heads: rows of a tile see nearly the
// same positions. Both planes of the rows are one left operand, [2 m, K]; for the scores a row of
// 128s joins them, which gives what the high plane's offset adds (scores.cc).
#include <algorithm>

#include "kernels/attention/paths.h"
#include "kernels/attention/scratch.h"
#include "kernels/matmul/panels.h"
#include "kernels/pack/pack.h"
#include "kernels/parallel.h"
#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

constexpr int kTileRows = 32;
constexpr int kCols = kRequantCols;
static_assert(kCols == kPanelRows);

// What one thread needs.
struct TileScratch {
  uint8_t* queries;  // [2 * kTileRows + 1, padded hd]
  int16_t* scores;   // [kTileRows, C]
  uint8_t* planes;   // [2 * kTileRows, padded C]
  uint16_t* e;       // [C]
};

// Between rows of scores and of planes.
int64_t row_stride(const AttentionShape& s) { return padded_k(s.context, 8); }

// A multiple of 64, as all its parts are.
size_t tile_bytes(const AttentionShape& s) {
  const auto context = static_cast<size_t>(row_stride(s));
  return (2 * kTileRows + 1) * padded_k(s.head_dim, 8) + kTileRows * context * 2 +
         2 * kTileRows * context + context * 2;
}

TileScratch tile_scratch(void* scratch, const AttentionShape& s, int worker) {
  const int64_t context = row_stride(s);
  uint8_t* p = align64(scratch) + worker * tile_bytes(s);
  TileScratch t;
  t.queries = p;
  p += (2 * kTileRows + 1) * padded_k(s.head_dim, 8);
  t.scores = reinterpret_cast<int16_t*>(p);
  p += kTileRows * context * 2;
  t.planes = p;
  p += 2 * kTileRows * context;
  t.e = reinterpret_cast<uint16_t*>(p);
  return t;
}

struct Tile {
  const AttentionSegment* segment;
  int kv_head;
  int first;  // row of the group
  int rows;
};

struct Work {
  const AttentionShape& shape;
  const AttentionLaw& law;
  const ExpPieces& exp;
  Isa isa;
  int group() const { return shape.heads / shape.kv_heads; }
  int seen(const Tile& tile, int r) const {
    return tile.segment->position + (tile.first + r) / group() + 1;
  }
  // Of element 0 of row r in q and out.
  int64_t offset(const Tile& tile, int r) const {
    const int token = (tile.first + r) / group(), head = (tile.first + r) % group();
    return (int64_t{token} * shape.heads + tile.kv_head * group() + head) * shape.head_dim;
  }
};

void pack_queries(const Work& work, const Tile& tile, uint8_t* queries) {
  const int hd = work.shape.head_dim;
  const int64_t stride = padded_k(hd, 8);
  for (int r = 0; r < tile.rows; ++r) {
    pack_row_s16(tile.segment->q + work.offset(tile, r), hd, 8, queries + r * stride,
                 queries + (tile.rows + r) * stride);
  }
  uint8_t* last = queries + 2 * tile.rows * stride;
  std::fill(last, last + hd, uint8_t{128});
  std::fill(last + hd, last + stride, uint8_t{0});
}

// One of the two products: rows of A times rows of a cache.
struct Product {
  int m, n, k;
  const uint8_t* a;
  int64_t lda;
  const int8_t* b;  // the first row's first byte, or a panel
  int64_t ldb;      // between rows
  int32_t* c;       // [m, kCols]
};

void multiply(const Work& work, const Product& p) {
  const auto* b = reinterpret_cast<const uint8_t*>(p.b);
  if (work.shape.panels) {
    return matmul_panels_u8s8_s32({p.m, p.n, p.k, p.a, p.lda, b, 8, p.c, kCols}, work.isa);
  }
  matmul_u8s8_s32({p.m, p.n, p.k, p.a, p.lda, b, p.ldb, 8, p.c, kCols}, work.isa);
}

// Scores of the tile against keys [c0, c0 + n).
void score_block(const Work& work, const Tile& tile, int c0, int n, RequantBlock& block,
                 const TileScratch& scratch) {
  alignas(64) int32_t acc[(2 * kTileRows + 1) * kCols];
  const AttentionShape& s = work.shape;
  multiply(work, {.m = 2 * tile.rows + 1,
                  .n = n,
                  .k = s.head_dim,
                  .a = scratch.queries,
                  .lda = padded_k(s.head_dim, 8),
                  .b = tile.segment->k_cache + key_offset(s, tile.kv_head, c0, 0),
                  .ldb = int64_t{s.kv_heads} * s.head_dim,
                  .c = acc});
  for (int j = 0; j < n; ++j) block.offset[j] = -acc[2 * tile.rows * kCols + j];
  for (int r = 0; r < tile.rows; ++r) {
    const int cols = std::min(n, work.seen(tile, r) - c0);
    if (cols <= 0) continue;
    requantize_row_s16(acc + r * kCols, acc + (tile.rows + r) * kCols, cols, block,
                       scratch.scores + r * row_stride(s) + c0, work.isa);
  }
}

void tile_scores(const Work& work, const Tile& tile, const TileScratch& scratch) {
  pack_queries(work, tile, scratch.queries);
  RequantBlock block;
  for (int j = 0; j < kCols; ++j) set_requant16(block, j, work.law.scores, 0);
  const int seen = work.seen(tile, tile.rows - 1);
  for (int c0 = 0; c0 < seen; c0 += kCols) {
    score_block(work, tile, c0, std::min(kCols, seen - c0), block, scratch);
  }
}

// Planes are zero from where a row's token no longer sees to where the last row's does.
void tile_softmax(const Work& work, const Tile& tile, const TileScratch& scratch) {
  const int64_t stride = row_stride(work.shape);
  const int64_t end = padded_k(work.seen(tile, tile.rows - 1), 8);
  for (int r = 0; r < tile.rows; ++r) {
    const int seen = work.seen(tile, r);
    uint8_t* high = scratch.planes + r * stride;
    uint8_t* low = scratch.planes + (tile.rows + r) * stride;
    const SoftmaxRow row = {scratch.scores + r * stride, seen, scratch.e, high, low};
    if (work.isa >= Isa::kAvx512Vnni) {
      softmax_row_avx512vnni(row, work.law, work.exp);
    } else {
      softmax_row(row, work.law);
    }
    std::fill(high + seen, high + end, uint8_t{0});
    std::fill(low + seen, low + end, uint8_t{0});
  }
}

void tile_context(const Work& work, const Tile& tile, const TileScratch& scratch) {
  const AttentionShape& s = work.shape;
  RequantBlock block;
  for (int j = 0; j < kCols; ++j) set_requant16(block, j, work.law.context, 0);
  const int seen = work.seen(tile, tile.rows - 1);
  alignas(64) int32_t acc[2 * kTileRows * kCols];
  for (int d0 = 0; d0 < s.head_dim; d0 += kCols) {
    const int n = std::min(kCols, s.head_dim - d0);
    multiply(work, {.m = 2 * tile.rows,
                    .n = n,
                    .k = seen,
                    .a = scratch.planes,
                    .lda = row_stride(s),
                    .b = tile.segment->v_cache + value_offset(s, tile.kv_head, 0, d0),
                    .ldb = s.context,
                    .c = acc});
    for (int r = 0; r < tile.rows; ++r) {
      requantize_row_s16(acc + r * kCols, acc + (tile.rows + r) * kCols, n, block,
                         tile.segment->out + work.offset(tile, r) + d0, work.isa);
    }
  }
}

// Rows of a tile: few enough that every thread has work, which matters when one token is decoded.
int rows_per_tile(std::span<const AttentionSegment> segments, const AttentionShape& s) {
  int64_t rows = 0;
  for (const AttentionSegment& segment : segments) rows += int64_t{segment.tokens} * s.heads;
  const int64_t even = rows / (int64_t{2} * max_threads());
  return static_cast<int>(std::clamp<int64_t>(even, 1, kTileRows));
}

int64_t tiles_of(const AttentionSegment& segment, const AttentionShape& s, int rows) {
  const int64_t all = int64_t{segment.tokens} * (s.heads / s.kv_heads);
  return s.kv_heads * ((all + rows - 1) / rows);
}

// Tile i of all segments; the last tiles of a segment, which see the most, come first.
Tile tile_at(std::span<const AttentionSegment> segments, const AttentionShape& s, int rows,
             int64_t i) {
  for (const AttentionSegment& segment : segments) {
    const int64_t tiles = tiles_of(segment, s, rows);
    if (i >= tiles) {
      i -= tiles;
      continue;
    }
    const int first = static_cast<int>((tiles - 1 - i) / s.kv_heads) * rows;
    const int all = segment.tokens * (s.heads / s.kv_heads);
    return {&segment, static_cast<int>(i % s.kv_heads), first, std::min(rows, all - first)};
  }
  return {};
}

}  // namespace

size_t attention_tiles_scratch_bytes(const AttentionShape& s) {
  const size_t reference = size_t{3} * s.heads * s.context * sizeof(int16_t);
  return 64 + std::max(reference, tile_bytes(s) * max_threads());
}

void attention_s16s8_s16(std::span<const AttentionSegment> segments, const AttentionShape& shape,
                         const AttentionLaw& law, void* scratch, Isa isa) {
  if (isa == Isa::kReference) {
    for (const AttentionSegment& segment : segments) {
      attention_s16s8_s16_reference(segment, shape, law, scratch);
    }
    return;
  }
  const ExpPieces exp = exp_pieces(law);
  const Work work{shape, law, exp, isa};
  const int rows = rows_per_tile(segments, shape);
  int64_t tiles = 0;
  for (const AttentionSegment& segment : segments) tiles += tiles_of(segment, shape, rows);
  parallel_for(tiles, [&](int64_t i, int worker) {
    const Tile tile = tile_at(segments, shape, rows, i);
    const TileScratch own = tile_scratch(scratch, shape, worker);
    tile_scores(work, tile, own);
    tile_softmax(work, tile, own);
    tile_context(work, tile, own);
  });
}

}  // namespace qnpu
