#include "quant/learn/workers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "base/status.h"
#include "io/test_folder.h"
#include "quant/learn/workers_testing.h"

namespace qnpu {
namespace {

using testing::HasSubstr;
using torch::Tensor;

TEST(Workers, OneProcessKeepsItsValues) {
  const Workers alone;
  double value = 0.1;
  alone.sum(value);
  EXPECT_EQ(value, 0.1);
  EXPECT_EQ(alone.size(), 1);
  EXPECT_TRUE(alone.first() && alone.mine(7) && alone.agree(3));
}

TEST(Workers, SumsInPlace) {
  run_workers(3, [](const Workers& workers) {
    const int rank = workers.rank();
    const Tensor large = torch::full({1000}, 1.0f + rank);
    workers.sum(large);
    EXPECT_TRUE(torch::equal(large, torch::full({1000}, 6.0f)));
    // Of different types and shapes; what is not contiguous stays so.
    const Tensor column = torch::arange(6, torch::kFloat32).view({2, 3}).t().select(1, rank % 2);
    const Tensor wide = torch::full({2}, 0.5, torch::kFloat64);
    workers.sum({column, wide});
    EXPECT_TRUE(torch::equal(column, torch::tensor({3.0f, 6.0f, 9.0f})));
    EXPECT_TRUE(torch::equal(wide, torch::full({2}, 1.5, torch::kFloat64)));
    int64_t count = (int64_t{1} << 60) + rank;
    workers.sum(count);
    EXPECT_EQ(count, (int64_t{3} << 60) + 3);
  });
}

TEST(Workers, AgreeOnlyIfAllDo) {
  run_workers(3, [](const Workers& workers) {
    EXPECT_TRUE(workers.agree(~uint64_t{0}));
    EXPECT_FALSE(workers.agree(workers.rank() == 2 ? 4 : 5));
  });
}

TEST(Workers, ALostOneIsAnError) {
  run_workers(2, [](const Workers& workers) {
    if (workers.rank() == 1) return;  // and its connections close
    double value = 1.0;
    EXPECT_THAT(error_of([&] { workers.sum(value); }), HasSubstr("process 1 of 2 lost another"));
  });
}

using Variables = std::map<std::string, std::string>;

// Sets variables for its life.
class Environment {
 public:
  explicit Environment(Variables variables) : set_(std::move(variables)) {
    for (const auto& [name, value] : set_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : set_) ::unsetenv(name.c_str());
  }

 private:
  Variables set_;
};

TEST(Workers, EnvironmentIsTorchruns) {
  EXPECT_EQ(Workers::from_environment().size(), 1);
  {
    const Environment one(Variables{{"WORLD_SIZE", "1"}});
    EXPECT_EQ(Workers::from_environment().size(), 1);
  }
  const Environment two(Variables{{"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}});
  EXPECT_THAT(error_of([] { Workers::from_environment(); }), HasSubstr("not RANK"));
  const Environment rank(Variables{{"RANK", "2"}});
  EXPECT_THAT(error_of([] { Workers::from_environment(); }),
              HasSubstr("RANK is '2', not a number from 0 to 1"));
}

}  // namespace
}  // namespace qnpu
