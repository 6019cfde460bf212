#include "apps/qnpu/progress_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

namespace qnpu {
namespace {

using ::testing::ElementsAre;

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

std::vector<std::string> lines_of(std::FILE* file) {
  std::vector<std::string> lines(1);
  std::rewind(file);
  for (int c; (c = std::fgetc(file)) != EOF;) {
    if (c == '\n') lines.emplace_back();
    if (c != '\n') lines.back() += static_cast<char>(c);
  }
  lines.pop_back();
  return lines;
}

TEST(Pace, IsThatOfLate) {
  Pace pace;
  EXPECT_EQ(pace.per_second(), 0);
  for (int second = 0; second <= 100; ++second) pace.add(second, 2 * second);
  EXPECT_DOUBLE_EQ(pace.per_second(), 2);
  for (int second = 101; second <= 200; ++second) pace.add(second, 200 + 5 * (second - 100));
  EXPECT_NEAR(pace.per_second(), 5, 1e-9);
}

TEST(Pace, ARunThatGoesOnIsNotFasterForThat) {
  Pace pace;
  pace.add(0, 0);
  for (int step = 0; step < 6; ++step) pace.add(20 * (step + 1), 1000 + step);
  EXPECT_DOUBLE_EQ(pace.per_second(), 1.0 / 20);
}

TEST(ProgressView, PlainLinesAreFew) {
  const File file(std::tmpfile());
  {
    ProgressView view({.out = file.get()});
    for (int i = 0; i <= 1000; ++i) view.update(0.1 * i, "load", i, 1000);
    view.update(100.1, "tune", 0, 1000);  // slow: less than a hundredth in five seconds
    view.update(106.0, "tune", 1, 1000, {{"loss", 0.5}});
    view.update(161.0, "tune", 2, 1000, {{"loss", 0.25}});
    view.end(162.1);
  }
  const std::vector<std::string> lines = lines_of(file.get());
  EXPECT_EQ(lines.size(), 19 + 1 + 1 + 1);
  EXPECT_EQ(lines[0], "load 50 of 1000, 10/s, 95 s left");
  EXPECT_EQ(lines[19], "load: 2 min");
  EXPECT_EQ(lines[20], "tune 2 of 1000, 30 s each, 8.4 h left, loss 0.25");
  EXPECT_EQ(lines[21], "tune: 62 s, loss 0.25");
}

TEST(ProgressView, QuietShowsNothing) {
  const File file(std::tmpfile());
  {
    ProgressView view({.out = file.get(), .quiet = true});
    for (int i = 0; i <= 100; ++i) view.update(i, "load", i, 100);
    view.say("word\n");
  }
  EXPECT_THAT(lines_of(file.get()), ElementsAre());
}

TEST(Sparkline, HeightsAreThoseOfTheValues) {
  EXPECT_EQ(sparkline({}, 8), "");
  EXPECT_EQ(sparkline({{1, 0.0}, {2, 3.5}, {3, 7.0}}, 8), "▁▅█");
  EXPECT_EQ(sparkline({{1, 4.0}, {2, 4.0}}, 8), "▁▁");
  EXPECT_EQ(sparkline({{1, 0.0}, {2, 2.0}, {3, 0.0}, {4, 0.0}}, 2), "█▁");  // means of two
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(sparkline({{1, 0.0}, {2, nan}, {3, INFINITY}, {4, 1.0}}, 8), "▁█");
}

TEST(FormatSeconds, HasTheUnitThatFits) {
  EXPECT_EQ(format_seconds(0.04), "0.0 s");
  EXPECT_EQ(format_seconds(99.4), "99 s");
  EXPECT_EQ(format_seconds(100), "2 min");
  EXPECT_EQ(format_seconds(9000), "2.5 h");
}

}  // namespace
}  // namespace qnpu
