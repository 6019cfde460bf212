// The report's pure parts: escaping as a property, rounding of numbers, operations counted by hand.
#include "report/report.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/status.h"
#include "report/operations.h"

namespace qnpu {
namespace {

using nlohmann::json;

// Whatever a string holds, the text cannot end a <script> element or open another tag, and reads
// back as the same string.
RC_GTEST_PROP(Report, JsonOfAnyTextStaysInsideItsScript, ()) {
  const auto pieces =
      *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(std::vector<std::string>{
          "</script>", "<script>", "<!--", "-->", "]]>", "&lt;", "\xe2\x80\xa8", "\xe2\x80\xa9",
          "\"", "\\", "\n", "ä", "x", "{{data}}"}));
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  const std::string written = json_for_script({{text, text}});
  RC_ASSERT(written.find('<') == std::string::npos);
  RC_ASSERT(written.find('>') == std::string::npos);
  RC_ASSERT(written.find('&') == std::string::npos);
  RC_ASSERT(written.find("\xe2\x80\xa8") == std::string::npos);
  RC_ASSERT(written.find("\xe2\x80\xa9") == std::string::npos);
  RC_ASSERT(json::parse(written).at(text) == text);
}

TEST(Report, InvalidUtf8IsReplaced) {
  EXPECT_EQ(json::parse(json_for_script("a\xff")), "a\xef\xbf\xbd");
}

TEST(Report, HtmlIsEscaped) {
  EXPECT_EQ(html_escaped("<a b=\"c\">'&"), "&lt;a b=&quot;c&quot;&gt;&#39;&amp;");
}

TEST(Report, NumbersAreShortened) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const json value = {
      {"x", 0.123456789}, {"list", {kNan, -kInfinity, 1e-30, 123456789}}, {"s", "text"}};
  EXPECT_EQ(shortened(value).dump(),
            R"({"list":[null,null,1e-30,123456789],"s":"text","x":0.123457})");
}

ModelConfig tiny_config() {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden_size = 8;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  config.intermediate_size = 16;
  config.vocab_size = 20;
  config.max_positions = 64;
  return config;
}

// By hand: a layer's linears have q 8 x 8, k and v 4 x 8, o 8 x 8, gate, up and down 16 x 8.
TEST(Report, OperationsOfATinyModel) {
  Recipe recipe;
  recipe.rules.push_back({.match = "*_proj.weight", .bitwidth = 4});
  const Graph graph = build_graph(tiny_config(), recipe);
  std::map<std::string, double> counts;
  for (const OperationCount& count : count_operations(graph, 10)) {
    counts[fmt::format("{} {}x{}", count.kind, count.left, count.right)] += count.number;
  }
  EXPECT_EQ(counts["linears 8x4"], 2 * (64 + 32 + 32 + 64 + 3 * 128));
  EXPECT_EQ(counts["head 16x8"], 20 * 8);
  EXPECT_EQ(counts["attention 16x8"], 2 * 2 * (10 * 2 * 4));  // scores and context
  double products = 0;
  for (const auto& [name, number] : counts) products += name.ends_with("x0") ? 0 : number;
  EXPECT_EQ(products, 2 * 576 + 160 + 320);
}

TEST(Report, WiderInputsAreCountedAsSuch) {
  Recipe recipe;
  recipe.rules.push_back({.match = "layers.1.mlp.down_proj.in", .bitwidth = 16});
  const Graph graph = build_graph(tiny_config(), recipe);
  double wide = 0;
  for (const OperationCount& count : count_operations(graph, 10)) {
    if (count.kind == "linears" && count.left == 16) wide += count.number;
  }
  EXPECT_EQ(wide, 8 * 16);
}

}  // namespace
}  // namespace qnpu
