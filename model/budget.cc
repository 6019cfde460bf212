#include "model/budget.h"

#include <cmath>
#include <limits>
#include <map>
#include <regex>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr double kMostBytes = 1e18;
constexpr size_t kLongest = 200;  // characters: std::regex needs stack for each

constexpr char kExample[] =
    "write for example \"16bit<=10%,size<=90MB\": 16-bit inputs of down_proj as a share of the "
    "layers, and the size of the weights in kB, MB, GB, KiB, MiB or GiB";

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  fail("the budget '{}' {}; {}", text, why, kExample);
}

std::string without_spaces(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c != ' ') result += c;
  }
  return result;
}

double unit_bytes(const std::string& unit) {
  static const std::map<std::string, double> units = {
      {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}};
  return units.at(unit);
}

// One term into the budget; false if it is none.
bool read_term(const std::string& term, const std::string& text, Budget& budget) {
  static const std::regex share(R"(16bit<=(\d+(?:\.\d+)?)%)");
  static const std::regex size(R"(size<=(\d+(?:\.\d+)?)(kB|MB|GB|KiB|MiB|GiB))");
  std::smatch match;
  if (std::regex_match(term, match, share)) {
    budget.wide_share = std::stod(match[1]) / 100.0;
    if (budget.wide_share > 1.0) refuse(text, "asks for more than 100 %");
    return true;
  }
  if (std::regex_match(term, match, size)) {
    const double bytes = std::stod(match[1]) * unit_bytes(match[2]);
    if (!(bytes >= 1.0 && bytes < kMostBytes)) refuse(text, "has a size out of all bounds");
    budget.bytes = static_cast<int64_t>(bytes);
    return true;
  }
  return false;
}

}  // namespace

Budget parse_budget(const std::string& text) {
  if (text.size() > kLongest) {
    fail("the budget has {} characters, more than {}; {}", text.size(), kLongest, kExample);
  }
  Budget budget;
  std::map<std::string, int> kinds;
  const std::string terms = without_spaces(text) + ",";
  size_t begin = 0;
  for (size_t end = 0; (end = terms.find(',', begin)) != std::string::npos; begin = end + 1) {
    const std::string term = terms.substr(begin, end - begin);
    if (!read_term(term, text, budget)) {
      refuse(text,
             term.empty() ? "has an empty term" : fmt::format("is not understood ({})", term));
    }
    if (++kinds[term.substr(0, term.find('<'))] > 1) refuse(text, "says the same thing twice");
  }
  return budget;
}

std::string budget_size(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size < 1e6) return fmt::format("{:.0f}kB", std::ceil(size / 1e3));
  return fmt::format("{:.1f}MB", std::ceil(size / 1e5) / 10.0);
}

}  // namespace qnpu
