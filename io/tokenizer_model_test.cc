// The real SmolLM2 tokenizer: counts and hashes of the ids that `tokenizers` gives.
#include <gtest/gtest.h>

#include <cstdlib>

#include "io/tokenizer.h"
#include "io/tokenizer_golden.h"

namespace qnpu {
namespace {

std::filesystem::path model_folder() {
  const char* folder = std::getenv("QNPU_MODEL_DIR");
  return folder ? folder : std::filesystem::path(QNPU_SOURCE_DIR) / "models/smollm2-135m";
}

TEST(TokenizerModel, IdsEqualThoseOfTheLibrary) {
  const Tokenizer tokenizer = Tokenizer::load(model_folder());
  const nlohmann::json texts = read_json(golden_folder() / "texts.json");
  const nlohmann::json expected = read_json(golden_folder() / "smollm2_real.json");
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  for (const auto& [name, text] : texts["sections"].items()) {
    EXPECT_EQ(summary(tokenizer.encode(text.get<std::string>(), true)), expected["sections"][name])
        << name;
  }
  EXPECT_EQ(summary(tokenizer.encode(mixed_text(texts), true)), expected["mixed"]);
}

}  // namespace
}  // namespace qnpu
