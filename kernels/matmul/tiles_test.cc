// The whole walk of tiles.h on tiles that are plain memory, written from the description of AMX in
// Intel's Architecture Instruction Set Extensions Programming Reference: what the instructions do,
// and what they refuse.
#include "kernels/matmul/tiles.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>

#include "kernels/matmul/testing.h"

namespace qnpu {
namespace {

class PlainTiles {
 public:
  void configure(const TileConfig& config) {
    EXPECT_EQ(config.palette, 1);
    for (int t = 0; t < 8; ++t) {
      EXPECT_LE(config.rows[t], 16);
      EXPECT_LE(config.row_bytes[t], 64);
      EXPECT_EQ(config.rows[t] == 0, config.row_bytes[t] == 0) << t;
    }
    config_ = config;
    std::memset(tiles_, 0, sizeof(tiles_));
  }
  void release() { config_ = TileConfig(); }
  bool released() const { return rows(0) == 0; }

  template <int kTile>
  void zero() {
    EXPECT_GT(rows(kTile), 0);
    std::memset(tiles_[kTile], 0, sizeof(tiles_[kTile]));
  }
  template <int kTile>
  void load(const void* base, int64_t stride) {
    zero<kTile>();
    for (int r = 0; r < rows(kTile); ++r) {
      std::memcpy(tiles_[kTile][r], static_cast<const uint8_t*>(base) + r * stride, bytes(kTile));
    }
  }
  template <int kTile>
  void store(void* base, int64_t stride) {
    EXPECT_GT(rows(kTile), 0);
    for (int r = 0; r < rows(kTile); ++r) {
      std::memcpy(static_cast<uint8_t*>(base) + r * stride, tiles_[kTile][r], bytes(kTile));
    }
  }
  template <int kSums, int kLeft, int kRight>
  void dpbusd() {
    EXPECT_GT(rows(kSums) * rows(kLeft) * rows(kRight), 0);
    EXPECT_EQ(rows(kSums), rows(kLeft));
    EXPECT_EQ(bytes(kSums), bytes(kRight));
    EXPECT_EQ(bytes(kLeft), 4 * rows(kRight));
    for (int m = 0; m < rows(kSums); ++m) {
      for (int n = 0; n < bytes(kSums) / 4; ++n) add_row(kSums, kLeft, kRight, m, n);
    }
  }

  // Rows past the end are rubbish, and so is what lies beyond the part.
  template <int kBits>
  void load_columns(const MatmulArgs& x, int64_t k0, int n, TileColumns& columns) {
    std::memset(columns.group, 0x5a, sizeof(columns.group));
    const int64_t size = std::min<int64_t>(kTilesPart, x.k - k0);
    for (int j = 0; j < std::min(32, x.n - n); ++j) {
      for (int64_t k = 0; k < padded_k(size, kBits); ++k) {
        columns.group[k / 4][j / 16][j % 16 * 4 + k % 4] = 0;
      }
      for (int64_t k = 0; k < size; ++k) {
        const int64_t to = a_index(k, kBits);
        columns.group[to / 4][j / 16][j % 16 * 4 + to % 4] = weight(x, n + j, k0 + k);
      }
    }
  }

 private:
  int rows(int tile) const { return config_.rows[tile]; }
  int bytes(int tile) const { return config_.row_bytes[tile]; }

  void add_row(int sums, int left, int right, int m, int n) {
    uint32_t sum = 0;  // wraps
    std::memcpy(&sum, tiles_[sums][m] + 4 * n, 4);
    for (int k = 0; k < bytes(left); ++k) {
      const auto b = static_cast<int8_t>(tiles_[right][k / 4][4 * n + k % 4]);
      sum += static_cast<uint32_t>(int32_t{tiles_[left][m][k]} * b);
    }
    std::memcpy(tiles_[sums][m] + 4 * n, &sum, 4);
  }

  static uint8_t weight(const MatmulArgs& x, int n, int64_t k) {
    const uint8_t* row = x.b + n * x.ldb;
    if (x.b_bits == 8) return row[k];
    return static_cast<uint8_t>(k % 2 == 0 ? row[k / 2] << 4 : row[k / 2] & 0xf0);
  }

  TileConfig config_;
  uint8_t tiles_[8][16][64] = {};
};

std::vector<int32_t> tile_product(const MatmulCase& c) {
  return product(c, [](const MatmulArgs& args) {
    PlainTiles tiles;
    args.b_bits == 4 ? matmul_by_tiles<4>(args, tiles) : matmul_by_tiles<8>(args, tiles);
    EXPECT_TRUE(tiles.released());
  });
}

RC_GTEST_PROP(Tiles, EqualReference, (uint64_t seed)) {
  Random random(seed);
  const bool deep = random.one_in(4);  // several parts of K
  const int widest = deep ? 34 : 70;
  const auto m = static_cast<int>(random.between(1, widest));
  const auto n = static_cast<int>(random.between(1, widest));
  const int k = 2 * static_cast<int>(deep ? random.between(500, 1200) : random.between(1, 150));
  const MatmulCase c = random_matmul(random, m, n, k, random.one_in(2) ? 8 : 4);
  RC_ASSERT(tile_product(c) == product(c, Isa::kReference));
}

// The same product from weights in panels.
std::vector<int32_t> panel_product(const MatmulCase& c) {
  std::vector<uint8_t> panels(panels_bytes(c.n, c.k, c.bits));
  make_panels(c.b.data(), c.n, c.k, c.bits, panels.data(), Isa::kReference);
  const int64_t lda = panel_padded_k(c.k);
  std::vector<uint8_t> a(c.m * lda, 0);
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t k = 0; k < c.k; ++k) {
      a[i * lda + panel_index(k, c.bits)] = c.a[i * c.lda + a_index(k, c.bits)];
    }
  }
  return product(c, [&](const MatmulArgs& args) {
    const PanelArgs x = {args.m,        args.n, args.k, a.data(), lda,
                         panels.data(), c.bits, args.c, args.ldc};
    PlainTiles tiles;
    c.bits == 4 ? panels_by_tiles<4>(x, tiles) : panels_by_tiles<8>(x, tiles);
    EXPECT_TRUE(tiles.released());
  });
}

RC_GTEST_PROP(Tiles, PanelsEqualReference, (uint64_t seed)) {
  Random random(seed);
  const bool deep = random.one_in(4);
  const int widest = deep ? 34 : 70;
  const auto m = static_cast<int>(random.between(1, widest));
  const auto n = static_cast<int>(random.between(1, widest));
  const int k = 2 * static_cast<int>(deep ? random.between(500, 1200) : random.between(1, 150));
  const MatmulCase c = random_matmul(random, m, n, k, random.one_in(2) ? 8 : 4);
  RC_ASSERT(panel_product(c) == product(c, Isa::kReference));
}

TEST(Tiles, EveryEdge) {
  Random random(5);
  for (int bits : {8, 4}) {
    for (int m : {1, 15, 16, 17, 31, 32, 33, 48}) {
      for (int n : {1, 15, 16, 17, 31, 32, 33, 48}) {
        const MatmulCase c = random_matmul(random, m, n, 66, bits);
        ASSERT_EQ(tile_product(c), product(c, Isa::kReference)) << m << " x " << n;
      }
    }
  }
}

TEST(Tiles, OddKOfEightBits) {
  Random random(6);
  for (int k : {1, 63, 65, 127, 1023, 1025}) {
    const MatmulCase c = random_matmul(random, 18, 3, k, 8);
    ASSERT_EQ(tile_product(c), product(c, Isa::kReference)) << k;
  }
}

TEST(Tiles, ExtremesAtTheLargestK) {
  for (int bits : {8, 4}) {
    const MatmulCase c = extreme_matmul(17, 2, bits);
    const int64_t expected = int64_t{kMaxMatmulK} * 255 * (bits == 8 ? -128 : -8);
    const auto out = tile_product(c);
    EXPECT_EQ(out[0], expected);
    EXPECT_EQ(out[16 * 5 + 1], expected);
  }
}

}  // namespace
}  // namespace qnpu
