#include <algorithm>
#include <cstring>

#include "kernels/attention/paths.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

constexpr int64_t kWord = 4;  // bytes

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// In panels: bytes of one position of a KV head, padded.
int64_t key_bytes(const AttentionShape& s) { return round_up(s.head_dim, kWord); }
int64_t value_bytes(const AttentionShape& s) { return round_up(s.head_dim, kPanelRows); }

}  // namespace

int64_t key_offset(const AttentionShape& s, int64_t g, int64_t c, int64_t d) {
  if (!s.panels) return (c * s.kv_heads + g) * s.head_dim + d;
  const int64_t panel = (g * s.context + c / kPanelRows * kPanelRows) * key_bytes(s);
  return panel + d / kWord * kPanelRows * kWord + c % kPanelRows * kWord + d % kWord;
}

int64_t value_offset(const AttentionShape& s, int64_t g, int64_t c, int64_t d) {
  if (!s.panels) return (g * s.head_dim + d) * s.context + c;
  const int64_t panel = (g * value_bytes(s) + d / kPanelRows * kPanelRows) * s.context;
  return panel + c / kWord * kPanelRows * kWord + d % kPanelRows * kWord + c % kWord;
}

size_t key_cache_bytes(const AttentionShape& s) {
  const int64_t position = s.panels ? key_bytes(s) : s.head_dim;
  return static_cast<size_t>(s.kv_heads * s.context * position);
}
size_t value_cache_bytes(const AttentionShape& s) {
  const int64_t position = s.panels ? value_bytes(s) : s.head_dim;
  return static_cast<size_t>(s.kv_heads * s.context * position);
}

void append_keys(const int8_t* rows, const AttentionShape& s, int8_t* k_cache) {
  const int64_t width = int64_t{s.kv_heads} * s.head_dim;
  if (!s.panels) {
    std::memcpy(k_cache + s.position * width, rows, s.tokens * width);
    return;
  }
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t g = 0; g < s.kv_heads; ++g) {
      const int8_t* row = rows + t * width + g * s.head_dim;
      int8_t* to = k_cache + key_offset(s, g, s.position + t, 0);
      int64_t d = 0;
      for (; d + kWord <= s.head_dim; d += kWord) std::memcpy(to + d * kPanelRows, row + d, kWord);
      std::copy(row + d, row + s.head_dim, to + d * kPanelRows);
    }
  }
}

void append_values(const int8_t* rows, const AttentionShape& s, int8_t* v_cache) {
  const int64_t width = int64_t{s.kv_heads} * s.head_dim;
  for (int64_t g = 0; g < s.kv_heads; ++g) {
    for (int64_t d = 0; d < s.head_dim; ++d) {
      const int8_t* from = rows + g * s.head_dim + d;
      if (!s.panels) {
        int8_t* column = v_cache + value_offset(s, g, s.position, d);
        for (int64_t t = 0; t < s.tokens; ++t) column[t] = from[t * width];
        continue;
      }
      int8_t* column = v_cache + value_offset(s, g, 0, d);
      for (int64_t t = 0; t < s.tokens; ++t) {
        const int64_t c = s.position + t;
        column[c / kWord * kPanelRows * kWord + c % kWord] = from[t * width];
      }
    }
  }
}

void copy_keys(const int8_t* from, const AttentionShape& s, int positions, int8_t* to) {
  if (!s.panels) {
    std::memcpy(to, from, static_cast<size_t>(key_offset(s, 0, positions, 0)));
    return;
  }
  const int64_t bytes = round_up(positions, kPanelRows) * key_bytes(s);
  for (int64_t g = 0; g < s.kv_heads; ++g) {
    const int64_t head = key_offset(s, g, 0, 0);
    std::memcpy(to + head, from + head, static_cast<size_t>(bytes));
  }
}

void copy_values(const int8_t* from, const AttentionShape& s, int positions, int8_t* to) {
  const int64_t step = s.panels ? kPanelRows : 1;
  const int64_t bytes = s.panels ? round_up(positions, kWord) * kPanelRows : positions;
  for (int64_t g = 0; g < s.kv_heads; ++g) {
    for (int64_t d = 0; d < s.head_dim; d += step) {
      const int64_t at = value_offset(s, g, 0, d);
      std::memcpy(to + at, from + at, static_cast<size_t>(bytes));
    }
  }
}

}  // namespace qnpu
