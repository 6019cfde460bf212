#include <cstring>

#include "kernels/attention/attention.h"

namespace qnpu {

void append_keys(const int8_t* rows, const AttentionShape& s, int8_t* k_cache) {
  const int64_t width = int64_t{s.kv_heads} * s.head_dim;
  std::memcpy(k_cache + s.position * width, rows, s.tokens * width);
}

void append_values(const int8_t* rows, const AttentionShape& s, int8_t* v_cache) {
  const int64_t width = int64_t{s.kv_heads} * s.head_dim;
  for (int64_t d = 0; d < width; ++d) {
    int8_t* column = v_cache + d * s.context + s.position;
    for (int64_t t = 0; t < s.tokens; ++t) column[t] = rows[t * width + d];
  }
}

}  // namespace qnpu
