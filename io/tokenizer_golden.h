// For tests: the texts of testdata/tokenizers (made by scripts/make_tokenizer_goldens.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(QNPU_SOURCE_DIR) / "testdata/tokenizers";
}

// The script's generator: a linear congruence picks atoms until there is text enough.
inline std::string mixed_text(const nlohmann::json& texts) {
  const auto& atoms = texts["atoms"];
  const size_t bytes = texts["mixed_bytes"];
  std::string text;
  for (uint64_t state = 12345; text.size() < bytes;) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += atoms[(state >> 33) % atoms.size()].get_ref<const std::string&>();
  }
  return text;
}

// {"count": n, "fnv1a": 64-bit FNV-1a over the ids as 4 little-endian bytes each}
inline nlohmann::json summary(const std::vector<int>& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const int id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  return {{"count", ids.size()}, {"fnv1a", fmt::format("{:016x}", hash)}};
}

}  // namespace qnpu
