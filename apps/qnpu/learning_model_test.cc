// Likelihoods of answers by SmolLM2-135M, where the query goes through the model once and the
// choices after it: against whole sequences from scratch, and against transformers.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "apps/qnpu/learning.h"
#include "apps/qnpu/task_evaluation.h"
#include "apps/qnpu/task_testing.h"
#include "io/files.h"
#include "io/safetensors.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

const std::filesystem::path kSource = QNPU_SOURCE_DIR;
const std::filesystem::path kModel = kSource / "models" / "smollm2-135m";

constexpr const char* kQuestions =
    R"({"query": "Question: What do bees make?", "choices": ["Honey.", "Steel."], "gold": 0}
{"query": "Question: To dry a wet floor,\n", "choices": ["pour water on it", "wipe it with a dry cloth"], "gold": 1}
{"query": "The capital of France is", "choices": ["Berlin", "Paris", "a small town in Spain"], "gold": 1}
{"query": "Two and two are", "choices": ["four", "five hundred"], "gold": 0}
)";

TEST(SmolLm2Tasks, LikelihoodsAreThoseOfWholeSequences) {
  const TestFolder folder;
  write_file(folder.path() / "questions.jsonl", kQuestions);
  const Task task = load_task(Tokenizer::load(kModel), folder.path() / "questions.jsonl", 0);
  const LogitsSource source = float_source(kModel, "fp32", 0);
  ChoiceAccuracy accuracy;
  for (const TaskItem& item : task.items) {
    const std::vector<double> sums = choice_log_likelihoods(item, source);
    const std::vector<double> truth = log_likelihoods_from_scratch(item, source);
    for (size_t i = 0; i < truth.size(); ++i) {
      std::cout << "line " << item.line << ", choice " << i << ": " << sums[i] << " against "
                << truth[i] << "\n";
      EXPECT_LT(truth[i], -0.1);
      EXPECT_NEAR(sums[i], truth[i], 1e-3);
    }
    accuracy.add(truth, item.characters, item.gold);
  }
  EXPECT_EQ(accuracy.plain.right, 3);       // all but the floor, whose wrong answer is shorter
  EXPECT_EQ(accuracy.normalised.right, 3);  // all but the sum, whose wrong answer is longer
  Progress progress;
  EXPECT_EQ(evaluate_task(task, source, progress).plain.right, accuracy.plain.right);
}

// 512 tokens as a choice after the first of them, beside shorter choices. The golden file
// (scripts/make_goldens.py) has the perplexity that transformers gave those tokens.
TEST(SmolLm2Tasks, LikelihoodOfALongChoiceIsThatOfTransformers) {
  const TensorFile golden =
      TensorFile::open(kSource / "testdata" / "goldens" / "smollm2-135m.safetensors");
  const auto tokens = golden.at("tokens").as<int32_t>();
  TaskItem item;
  item.context = 1;
  for (const size_t length : {size_t{3}, tokens.size(), size_t{200}}) {
    item.sequences.emplace_back(tokens.begin(), tokens.begin() + length);
  }
  const double sum = choice_log_likelihoods(item, float_source(kModel, "fp32", 0))[1];
  const double perplexity = golden.at("perplexity_fp32").as<float>()[0];
  std::cout << "per token " << sum / 511 << " against " << -std::log(perplexity) << "\n";
  EXPECT_NEAR(sum / 511, -std::log(perplexity), 1e-4);
}

}  // namespace
}  // namespace qnpu
