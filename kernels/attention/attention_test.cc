#include "kernels/attention/attention.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "kernels/matmul/panels.h"
#include "kernels/testing.h"

namespace qnpu {
namespace {

AttentionShape random_shape(Random& random) {
  AttentionShape s;
  s.tokens = static_cast<int>(random.one_in(8) ? random.between(30, 40) : random.between(1, 5));
  s.position = static_cast<int>(random.one_in(3) ? 0 : random.between(0, 90));
  s.context = s.position + s.tokens + static_cast<int>(random.between(0, 9));
  s.kv_heads = static_cast<int>(random.between(1, 3));
  s.heads = s.kv_heads * static_cast<int>(random.between(1, 3));
  s.head_dim = 2 * static_cast<int>(random.between(1, 40));
  return s;
}

size_t rows(const AttentionShape& s) { return size_t(s.heads) * s.tokens * s.context; }
size_t cache(const AttentionShape& s) { return size_t(s.kv_heads) * s.head_dim * s.context; }

Requant random_law(Random& random) {
  return make_requant16(std::ldexp(1.0 + random.between(0, 4095) / 4096.0,
                                   static_cast<int>(random.between(-20, -6))));
}

// Outputs start as 12345, so what a path must not write is compared too.
constexpr int kUntouched = 12345;

RC_GTEST_PROP(Attention, ScoresEqualReference, (uint64_t seed)) {
  Random random(seed);
  const AttentionShape s = random_shape(random);
  const auto q = random.integers<int16_t>(size_t(s.tokens) * s.heads * s.head_dim, -32768, 32767);
  const auto keys = random.integers<int8_t>(cache(s), -128, 127);
  const Requant law = random_law(random);
  std::vector<uint8_t> scratch(attention_scratch_bytes(s));
  const auto run = [&](Isa isa) {
    std::vector<int16_t> scores(rows(s), kUntouched);
    scores_s16s8_s16(q.data(), keys.data(), s, law, scores.data(), scratch.data(), isa);
    return scores;
  };
  const auto expected = run(Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(run(isa) == expected);
}

RC_GTEST_PROP(Attention, ContextEqualsReference, (uint64_t seed)) {
  Random random(seed);
  const AttentionShape s = random_shape(random);
  const auto p = random.integers<uint16_t>(rows(s), 0, 65535);
  const auto values = random.integers<int8_t>(cache(s), -128, 127);
  const Requant law = random_law(random);
  std::vector<uint8_t> scratch(attention_scratch_bytes(s));
  const auto run = [&](Isa isa) {
    std::vector<int16_t> out(size_t(s.tokens) * s.heads * s.head_dim, kUntouched);
    context_u16s8_s16(p.data(), values.data(), s, law, out.data(), scratch.data(), isa);
    return out;
  };
  const auto expected = run(Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(run(isa) == expected);
}

RC_GTEST_PROP(Attention, SoftmaxEqualsReference, (uint64_t seed)) {
  Random random(seed);
  const AttentionShape s = random_shape(random);
  const auto masked = random.integers<int16_t>(rows(s), -32768, 32767);
  const ExpTables tables = make_exp_tables(std::ldexp(1.0, -int(random.between(4, 14))));
  std::vector<uint8_t> scratch(attention_scratch_bytes(s));
  const auto run = [&](Isa isa) {
    std::vector<uint16_t> p(rows(s), kUntouched);
    softmax_s16_u16(masked.data(), s, tables.high.data(), tables.low.data(), p.data(),
                    scratch.data(), isa);
    return p;
  };
  const auto expected = run(Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(run(isa) == expected);
}

struct Segments {
  AttentionShape shape;
  std::vector<AttentionSegment> list;
  std::vector<std::vector<int16_t>> q, out;
  std::vector<std::vector<int8_t>> keys, values;
};

Segments random_segments(Random& random) {
  Segments all;
  all.shape = random_shape(random);
  all.shape.context = static_cast<int>(random.between(60, 300));
  const size_t width = size_t(all.shape.heads) * all.shape.head_dim;
  for (int64_t i = random.between(1, 3); i > 0; --i) {
    AttentionSegment segment;
    segment.tokens = static_cast<int>(random.one_in(3) ? random.between(20, 50) : 1);
    segment.position = static_cast<int>(random.between(0, all.shape.context - segment.tokens));
    all.q.push_back(random.integers<int16_t>(segment.tokens * width, -32768, 32767));
    all.keys.push_back(random.integers<int8_t>(cache(all.shape), -128, 127));
    all.values.push_back(random.integers<int8_t>(cache(all.shape), -128, 127));
    all.out.emplace_back(segment.tokens * width, kUntouched);
    all.list.push_back(segment);
  }
  for (size_t i = 0; i < all.list.size(); ++i) {
    all.list[i].q = all.q[i].data();
    all.list[i].k_cache = all.keys[i].data();
    all.list[i].v_cache = all.values[i].data();
    all.list[i].out = all.out[i].data();
  }
  return all;
}

// All steps at once give what the specifications of the four give one after the other.
RC_GTEST_PROP(Attention, TilesEqualTheFourSteps, (uint64_t seed)) {
  Random random(seed);
  Segments all = random_segments(random);
  const ExpTables tables = make_exp_tables(std::ldexp(1.0, -int(random.between(4, 14))));
  // Now and then a sum with larger numbers than a fast path takes.
  AddLaw mask = make_add16(1.0, 0.5, 1.0 + 0.01 * random.between(0, 100));
  if (random.one_in(4)) mask = {mask.ma << 4, mask.mb << 4, mask.shift + 4};
  const AttentionLaw law = {random_law(random),
                            mask,
                            int(random.between(0, 32767)),
                            tables.high.data(),
                            tables.low.data(),
                            random_law(random)};
  std::vector<uint8_t> scratch(attention_tiles_scratch_bytes(all.shape));
  const auto run = [&](Isa isa) {
    for (auto& out : all.out) std::fill(out.begin(), out.end(), kUntouched);
    attention_s16s8_s16(all.list, all.shape, law, scratch.data(), isa);
    return all.out;
  };
  const auto expected = run(Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(run(isa) == expected);
}

TEST(Attention, MaskKeepsToTheVisiblePart) {
  const AttentionShape s{2, 1, 4, 1, 1, 2};
  const std::vector<int16_t> scores = {100, -100, 7, 7, 32767, -32768, 101, 7};
  std::vector<int16_t> masked(8, kUntouched);
  mask_s16(scores.data(), s, make_add16(1.0, 1.0, 2.0), 32000, masked.data());
  EXPECT_EQ(masked, (std::vector<int16_t>{32050, 31950, kUntouched, kUntouched, 32767, 15616, 32051,
                                          kUntouched}));
}

// The same numbers in the other layout.
std::vector<int8_t> in_panels(const std::vector<int8_t>& rows, AttentionShape s, bool keys) {
  AttentionShape to = s;
  to.panels = true;
  const auto offset = keys ? key_offset : value_offset;
  std::vector<int8_t> panels(keys ? key_cache_bytes(to) : value_cache_bytes(to), 0x5a);
  for (int g = 0; g < s.kv_heads; ++g) {
    for (int c = 0; c < s.context; ++c) {
      for (int d = 0; d < s.head_dim; ++d) panels[offset(to, g, c, d)] = rows[offset(s, g, c, d)];
    }
  }
  return panels;
}

RC_GTEST_PROP(Attention, CachesInPanelsGiveTheSame, (uint64_t seed)) {
  Random random(seed);
  Segments all = random_segments(random);
  all.shape.context = 320;  // a multiple of 32 that holds every position
  const ExpTables tables = make_exp_tables(0.003);
  const AttentionLaw law = {random_law(random), make_add16(1.0, 0.5, 1.2), 300,
                            tables.high.data(), tables.low.data(),         random_law(random)};
  for (auto& k : all.keys) k = random.integers<int8_t>(cache(all.shape), -128, 127);
  for (auto& v : all.values) v = random.integers<int8_t>(cache(all.shape), -128, 127);
  std::vector<std::vector<int8_t>> panels;
  std::vector<AttentionSegment> list = all.list, other = all.list;
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].k_cache = all.keys[i].data();
    list[i].v_cache = all.values[i].data();
    other[i].k_cache = panels.emplace_back(in_panels(all.keys[i], all.shape, true)).data();
    other[i].v_cache = panels.emplace_back(in_panels(all.values[i], all.shape, false)).data();
  }
  std::vector<uint8_t> scratch(attention_tiles_scratch_bytes(all.shape));
  attention_s16s8_s16(list, all.shape, law, scratch.data(), Isa::kReference);
  const auto expected = all.out;
  AttentionShape shape = all.shape;
  shape.panels = true;
  for (Isa isa : fast_isas()) {
    if (!takes_panels(isa)) continue;
    for (auto& out : all.out) std::fill(out.begin(), out.end(), kUntouched);
    attention_s16s8_s16(other, shape, law, scratch.data(), isa);
    RC_ASSERT(all.out == expected);
  }
}

// Appending and copying put every number where the offsets say, in both layouts.
RC_GTEST_PROP(Attention, CachesHoldWhatWasAppended, (uint64_t seed)) {
  Random random(seed);
  AttentionShape s = random_shape(random);
  s.context = 160;
  s.panels = random.one_in(2);
  const size_t width = size_t(s.kv_heads) * s.head_dim;
  const auto rows = random.integers<int8_t>(s.tokens * width, -128, 127);
  std::vector<int8_t> k(key_cache_bytes(s), 99), v(value_cache_bytes(s), 99);
  append_keys(rows.data(), s, k.data());
  append_values(rows.data(), s, v.data());
  std::vector<int8_t> k2(k.size(), 7), v2(v.size(), 7);
  const int copied = s.position + static_cast<int>(random.between(0, s.tokens));
  copy_keys(k.data(), s, copied, k2.data());
  copy_values(v.data(), s, copied, v2.data());
  for (int g = 0; g < s.kv_heads; ++g) {
    for (int c = 0; c < s.position + s.tokens; ++c) {
      for (int d = 0; d < s.head_dim; ++d) {
        const int64_t at_k = key_offset(s, g, c, d), at_v = value_offset(s, g, c, d);
        const int8_t wanted =
            c < s.position ? 99 : rows[(c - s.position) * width + g * s.head_dim + d];
        RC_ASSERT(k[at_k] == wanted && v[at_v] == wanted);
        RC_ASSERT(c >= copied || (k2[at_k] == wanted && v2[at_v] == wanted));
      }
    }
  }
}

TEST(Attention, CachesHoldRowsAndColumns) {
  AttentionShape s{2, 1, 4, 1, 1, 3};
  const int8_t rows_in[] = {1, 2, 3, 4, 5, 6};
  std::vector<int8_t> k(12, 0), v(12, 0);
  append_keys(rows_in, s, k.data());
  append_values(rows_in, s, v.data());
  EXPECT_EQ(k, (std::vector<int8_t>{0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0}));
  EXPECT_EQ(v, (std::vector<int8_t>{0, 1, 4, 0, 0, 2, 5, 0, 0, 3, 6, 0}));
}

// One token by one, all at once and in two parts: the same scores, probabilities and outputs.
TEST(Attention, ChunksGiveTheSameBits) {
  Random random(5);
  const int total = 41;
  AttentionShape all{total, 0, 64, 6, 2, 32};
  const auto q = random.integers<int16_t>(size_t(total) * 6 * 32, -20000, 20000);
  const auto k_rows = random.integers<int8_t>(size_t(total) * 64, -128, 127);
  const auto v_rows = random.integers<int8_t>(size_t(total) * 64, -128, 127);
  const ExpTables tables = make_exp_tables(0.002);
  const auto run = [&](int step) {
    std::vector<int8_t> k(cache(all)), v(cache(all));
    std::vector<int16_t> out(q.size());
    std::vector<uint8_t> scratch(attention_scratch_bytes(all));
    for (int t = 0; t < total; t += step) {
      AttentionShape s = all;
      s.position = t;
      s.tokens = std::min(step, total - t);
      append_keys(k_rows.data() + t * 64, s, k.data());
      append_values(v_rows.data() + t * 64, s, v.data());
      std::vector<int16_t> scores(rows(s));
      std::vector<uint16_t> p(rows(s));
      scores_s16s8_s16(q.data() + t * 192, k.data(), s, make_requant16(1e-4), scores.data(),
                       scratch.data(), best_isa());
      softmax_s16_u16(scores.data(), s, tables.high.data(), tables.low.data(), p.data(),
                      scratch.data(), best_isa());
      context_u16s8_s16(p.data(), v.data(), s, make_requant16(2e-3), out.data() + t * 192,
                        scratch.data(), best_isa());
    }
    return out;
  };
  const auto expected = run(total);
  EXPECT_EQ(run(1), expected);
  EXPECT_EQ(run(17), expected);
}

}  // namespace
}  // namespace qnpu
