#include "model/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/test_folder.h"
#include "model/recipe.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

TEST(Budget, TermsInAnyOrder) {
  const Budget both = parse_budget("16bit<=10%,size<=90MB");
  EXPECT_EQ(both.wide_share, 0.1);
  EXPECT_EQ(both.bytes, 90'000'000);
  const Budget turned = parse_budget(" size <= 1.5 GiB , 16bit <= 0.5 % ");
  EXPECT_EQ(turned.bytes, 1'610'612'736);
  EXPECT_EQ(turned.wide_share, 0.005);
  EXPECT_EQ(parse_budget("16bit<=100%").bytes, 0);
  EXPECT_EQ(parse_budget("size<=7KiB").wide_share, 0.0);
  EXPECT_EQ(parse_budget("size<=7kB").bytes, 7000);
}

TEST(Budget, UselessTextsAreRefusedWithAnExample) {
  for (const char* text :
       {"", ",", "90MB", "size<=90", "size<90MB", "size<=-1MB", "size<=90mb", "size<=0MB",
        "size<=1e3MB", "16bit<=10", "16bit<=101%", "8bit<=10%", "size<=90MB,",
        "size<=1MB,size<=2MB", "16bit<=1%,16bit<=1%", "size<=9999999999999GB", "nonsense"}) {
    const std::string error = error_of([&] { parse_budget(text); });
    EXPECT_THAT(error, HasSubstr("\"16bit<=10%,size<=90MB\"")) << text;
    EXPECT_THAT(error, HasSubstr(text)) << text;
  }
}

TEST(Budget, LongTextsAreNeitherReadNorRepeated) {
  for (const size_t digits : {201, 400, 200'000}) {
    const std::string text = "16bit<=" + std::string(digits, '1') + "%";
    const std::string error = error_of([&] { parse_budget(text); });
    EXPECT_THAT(error, HasSubstr(std::to_string(text.size()) + " characters, more than 200"));
    EXPECT_LT(error.size(), 400);
  }
  const std::string digits(190, '9');
  EXPECT_THAT(error_of([&] { parse_budget("16bit<=" + digits + "%"); }), HasSubstr("100 %"));
  EXPECT_THAT(error_of([&] { parse_budget("size<=" + digits + "GB"); }), HasSubstr("bounds"));
}

TEST(Budget, SharesAreUpperBounds) {
  EXPECT_EQ(parse_budget("16bit<=10%").wide_layers(30), 3);
  EXPECT_EQ(parse_budget("16bit<=9.9%").wide_layers(30), 2);
  EXPECT_EQ(parse_budget("16bit<=0%").wide_layers(30), 0);
  EXPECT_EQ(parse_budget("16bit<=100%").wide_layers(2), 2);
  for (int layers = 1; layers < 200; ++layers) {
    for (int percent = 0; percent <= 100; ++percent) {
      EXPECT_EQ((Budget{percent / 100.0, 0}.wide_layers(layers)), percent * layers / 100);
    }
  }
}

TEST(Budget, SizesAreRoundedUpAndReadAgain) {
  EXPECT_EQ(budget_size(131'072), "132kB");
  EXPECT_EQ(budget_size(129'500'001), "129.6MB");
  for (const int64_t bytes : {1, 999, 1000, 999'999, 1'000'000, 143'691'520, 2'147'483'647}) {
    const int64_t read = parse_budget("size<=" + budget_size(bytes)).bytes;
    EXPECT_GE(read, bytes);
    EXPECT_LE(read, bytes + std::max<int64_t>(1000, bytes / 10));
  }
}

TEST(Budget, ARecipeKeepsItsOwn) {
  const Recipe recipe = load_recipe(QNPU_SOURCE_DIR "/recipes/auto.json");
  EXPECT_EQ(parse_budget(recipe.budget).wide_share, 0.0);
}

}  // namespace
}  // namespace qnpu
