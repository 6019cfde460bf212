// Artifacts of every format version that was ever written still load and give the same integers.
// testdata/artifacts/v<version>-<model> stays for ever; golden.safetensors in it holds tokens I32
// [T] and the logits I16 [T, V] that they had. For a new version: add its folder to make_goldens
// below, and run this test once with QNPU_WRITE_GOLDEN=1, which writes what is missing.
// (v1 are the tiny models of testdata/models, quantized.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/status.h"
#include "io/safetensors.h"
#include "runtime/session.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

constexpr int kTokens = 40;

fs::path goldens() { return fs::path(QNPU_SOURCE_DIR) / "testdata/artifacts"; }

// What each version brought. 2: prefixes, layers of different MLP sizes, 4-bit inputs of linears.
void make_prefix_golden(const fs::path& folder) {
  const fs::path source = QNPU_SOURCE_DIR;
  const ModelConfig config = testing::tiny_config(
      "qwen3", {.vocab_size = 268, .intermediate_sizes = {64, 96}, .num_heads = 4});
  testing::make_random_artifact(config, load_recipe(source / "recipes/w4a8kv8.json"), /*seed=*/1,
                                folder, /*positions=*/80, /*prefix=*/2);
  // With a tokenizer of 268 tokens, so that the tests of the commands can use it.
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    fs::copy_file(source / "testdata/models/tiny-qwen3" / file, folder / file);
  }
}

void make_a4_golden(const fs::path& folder) {
  Recipe recipe;
  recipe.name = "a4";
  for (const char* site : {"qkv_proj.in", "o_proj.in", "gate_up_proj.in", "_proj.weight"}) {
    recipe.rules.push_back({.match = std::string("layers.*") + site, .bitwidth = 4});
  }
  testing::make_random_artifact(testing::tiny_config("llama"), recipe, /*seed=*/2, folder,
                                /*positions=*/64);
}

void make_goldens() {
  const auto make = [](const char* name, void (*maker)(const fs::path&)) {
    if (!fs::exists(goldens() / name)) maker(goldens() / name);
  };
  make("v2-prefix-qwen3", make_prefix_golden);
  make("v2-a4-llama", make_a4_golden);
}

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(goldens())) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::vector<int16_t> logits_of(const fs::path& folder, std::span<const int32_t> tokens) {
  const int count = static_cast<int>(tokens.size());
  const auto artifact = load_artifact(folder);
  Session session(artifact, {.context = count + artifact->graph.prefix_length(), .max_rows = 16});
  std::vector<int16_t> all;
  for (int begin = 0; begin < count; begin += 16) {
    const auto piece = tokens.subspan(begin, std::min(16, count - begin));
    const auto logits = session.run(piece, /*all_rows=*/true);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

void write_golden(const fs::path& folder) {
  if (fs::exists(folder / "golden.safetensors")) return;
  const int vocab = load_artifact(folder)->graph.config.vocab_size;
  std::vector<int32_t> tokens;
  for (int t = 0; t < kTokens; ++t) tokens.push_back((t * 37 + t * t) % std::min(vocab, 250));
  const std::vector<int16_t> logits = logits_of(folder, tokens);
  const auto vocabulary = static_cast<int64_t>(logits.size()) / kTokens;
  write_safetensors(folder / "golden.safetensors",
                    {{"tokens", "I32", {kTokens}, std::as_bytes(std::span(tokens))},
                     {"logits", "I16", {kTokens, vocabulary}, std::as_bytes(std::span(logits))}});
}

TEST(GoldenArtifacts, OfEveryVersionGiveTheSameIntegers) {
  const bool write = std::getenv("QNPU_WRITE_GOLDEN") != nullptr;
  if (write) make_goldens();
  const std::vector<fs::path> folders = golden_folders();
  for (int version = 1; version <= kArtifactVersion; ++version) {
    const std::string prefix = fmt::format("v{}-", version);
    EXPECT_TRUE(std::any_of(
        folders.begin(), folders.end(),
        [&](const fs::path& folder) { return folder.filename().string().rfind(prefix, 0) == 0; }))
        << "no golden artifact of format version " << version;
  }
  for (const fs::path& folder : folders) {
    SCOPED_TRACE(folder.filename());
    if (write) write_golden(folder);
    const TensorFile golden = TensorFile::open(folder / "golden.safetensors");
    const auto expected = golden.at("logits").as<int16_t>();
    EXPECT_EQ(logits_of(folder, golden.at("tokens").as<int32_t>()),
              std::vector<int16_t>(expected.begin(), expected.end()));
  }
}

}  // namespace
}  // namespace qnpu
