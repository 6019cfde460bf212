// Artifacts of every format version that was ever written still load and give the same integers.
// testdata/artifacts/v<version>-<model> stays for ever; golden.safetensors in it holds tokens I32
// [T] and the logits I16 [T, V] that they had. For a new version: quantize a tiny model into a new
// folder, and run this test once with QNPU_WRITE_GOLDEN=1.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "io/safetensors.h"
#include "runtime/session.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

constexpr int kTokens = 40;

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry :
       fs::directory_iterator(fs::path(QNPU_SOURCE_DIR) / "testdata/artifacts")) {
    folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::vector<int16_t> logits_of(const fs::path& folder, std::span<const int32_t> tokens) {
  const int count = static_cast<int>(tokens.size());
  Session session(load_artifact(folder), {.context = count, .max_rows = 16});
  std::vector<int16_t> all;
  for (int begin = 0; begin < count; begin += 16) {
    const auto piece = tokens.subspan(begin, std::min(16, count - begin));
    const auto logits = session.run(piece, /*all_rows=*/true);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

void write_golden(const fs::path& folder) {
  std::vector<int32_t> tokens;
  for (int t = 0; t < kTokens; ++t) tokens.push_back((t * 37 + t * t) % 250);
  const std::vector<int16_t> logits = logits_of(folder, tokens);
  const auto vocabulary = static_cast<int64_t>(logits.size()) / kTokens;
  write_safetensors(folder / "golden.safetensors",
                    {{"tokens", "I32", {kTokens}, std::as_bytes(std::span(tokens))},
                     {"logits", "I16", {kTokens, vocabulary}, std::as_bytes(std::span(logits))}});
}

TEST(GoldenArtifacts, OfEveryVersionGiveTheSameIntegers) {
  const std::vector<fs::path> folders = golden_folders();
  for (int version = 1; version <= kArtifactVersion; ++version) {
    const std::string prefix = "v" + std::to_string(version) + "-";
    EXPECT_TRUE(std::any_of(
        folders.begin(), folders.end(),
        [&](const fs::path& folder) { return folder.filename().string().rfind(prefix, 0) == 0; }))
        << "no golden artifact of format version " << version;
  }
  for (const fs::path& folder : folders) {
    SCOPED_TRACE(folder.filename());
    if (std::getenv("QNPU_WRITE_GOLDEN") != nullptr) write_golden(folder);
    const TensorFile golden = TensorFile::open(folder / "golden.safetensors");
    const auto expected = golden.at("logits").as<int16_t>();
    EXPECT_EQ(logits_of(folder, golden.at("tokens").as<int32_t>()),
              std::vector<int16_t>(expected.begin(), expected.end()));
  }
}

}  // namespace
}  // namespace qnpu
