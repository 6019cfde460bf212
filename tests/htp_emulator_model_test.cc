// Our reference kernels against the emulator of Qualcomm's HTP (onnxruntime-qnn): npu/htp makes the
// cases, here they are recomputed. Equal means ==; the rest has the tolerance that docs/numerics.md
// states. Needs the Python packages of scripts/requirements-test.txt; without them it fails.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/law.h"
#include "base/status.h"
#include "io/safetensors.h"
#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

std::string python() {
  const char* wish = std::getenv("QNPU_PYTHON");
  return wish != nullptr ? wish : QNPU_SOURCE_DIR "/.venv/bin/python";
}

// One process at a time makes the cases.
class FileLock {
 public:
  explicit FileLock(const char* path) : file_(open(path, O_CREAT | O_RDWR, 0644)) {
    flock(file_, LOCK_EX);
  }
  ~FileLock() { close(file_); }

 private:
  int file_;
};

// The folder of cases, made when it is missing or older than the scripts that make it; empty if
// they cannot be made.
fs::path case_folder() {
  const FileLock lock("htp_cases.lock");
  const fs::path folder = fs::current_path() / "htp_cases";
  const fs::path source = fs::path(QNPU_SOURCE_DIR) / "npu/htp";
  const bool fresh = fs::exists(folder) &&
                     fs::last_write_time(folder) > fs::last_write_time(source / "make_cases.py") &&
                     fs::last_write_time(folder) > fs::last_write_time(source / "qdq.py");
  if (!fresh) {
    const std::string command = fmt::format("'{}' '{}' '{}'", python(),
                                            (source / "make_cases.py").string(), folder.string());
    if (std::system(command.c_str()) != 0) {
      // A failure of the suite's set-up would count every test as skipped; none finds a case now.
      std::cerr << "failed: " << command << "\n(packages: scripts/requirements-test.txt)\n";
      return {};
    }
  }
  return folder;
}

struct Case {
  TensorFile file;
  std::string name;

  std::vector<int64_t> shape(const std::string& tensor) const { return file.at(tensor).shape; }
  template <typename T>
  std::vector<T> integers(const std::string& tensor) const {
    const auto view = file.at(tensor).as<int32_t>();
    return std::vector<T>(view.begin(), view.end());
  }
  double scale(const std::string& tensor, size_t i = 0) const {
    return file.at(tensor + "_scale").as<float>()[i];
  }
  int zero(const std::string& tensor) const { return integers<int>(tensor + "_zero")[0]; }
  std::string text(const std::string& key) const { return file.metadata().at(key); }
  bool eight_bits() const { return text("bits") == "8"; }
};

// Counts what differs, and by how much at most.
struct Difference {
  int64_t numbers = 0, unequal = 0, largest = 0;

  template <typename T>
  void add(const Case& c, const std::vector<T>& ours) {
    const auto theirs = c.integers<int32_t>("y");
    ASSERT_EQ(ours.size(), theirs.size()) << c.name;
    int64_t before = unequal;
    for (size_t i = 0; i < ours.size(); ++i) {
      const int64_t d = std::abs(int64_t{ours[i]} - theirs[i]);
      ++numbers;
      unequal += d != 0;
      largest = std::max(largest, d);
    }
    if (unequal != before) std::cout << c.name << ": " << unequal - before << " differ\n";
  }
  ~Difference() {
    std::cout << unequal << " of " << numbers << " differ, by at most " << largest << "\n";
  }
};

class HtpEmulator : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const fs::path folder = case_folder();
    if (!fs::exists(folder)) return;
    for (const auto& entry : fs::directory_iterator(folder)) {
      cases_.push_back({TensorFile::open(entry.path()), entry.path().filename().string()});
    }
    std::sort(cases_.begin(), cases_.end(),
              [](const Case& a, const Case& b) { return a.name < b.name; });
  }
  static void TearDownTestSuite() { cases_.clear(); }

  // Runs `check` on every case of `op`; there must be some.
  template <typename Check>
  static void for_each_case(const std::string& op, Check check) {
    int count = 0;
    for (const Case& c : cases_) {
      if (c.text("op") != op) continue;
      check(c);
      ++count;
    }
    EXPECT_GT(count, 0) << "no cases of " << op;
  }

  static inline std::vector<Case> cases_;
};

// ---- Linears -----------------------------------------------------------------------------------

struct Linear {
  LinearWeights view;
  std::vector<uint8_t> weight;
  std::vector<int32_t> row_sum, bias, mantissa, shift;
};

std::vector<uint8_t> packed_weight(const std::vector<int>& w, int bits) {
  std::vector<uint8_t> packed;
  for (size_t i = 0; i < w.size(); i += bits == 8 ? 1 : 2) {
    packed.push_back(static_cast<uint8_t>(bits == 8 ? w[i] : (w[i] & 15) | (w[i + 1] & 15) << 4));
  }
  return packed;
}

Linear linear_of(const Case& c) {
  const auto w = c.integers<int>("w");
  const int n = static_cast<int>(c.shape("w")[0]), k = static_cast<int>(c.shape("w")[1]);
  const int bits = std::stoi(c.text("weight_bits"));
  Linear l;
  l.weight = packed_weight(w, bits);
  for (int j = 0; j < n; ++j) {
    const double m = snap_multiplier(c.scale("x") * c.scale("w", j) / c.scale("y"));
    const Requant law = c.eight_bits() ? make_requant8(m) : make_requant16(m);
    l.mantissa.push_back(law.mantissa);
    l.shift.push_back(law.shift);
    int32_t sum = 0;
    for (int i = 0; i < k; ++i) sum += w[j * k + i];
    l.row_sum.push_back(sum);
  }
  if (c.file.contains("bias")) l.bias = c.integers<int32_t>("bias");
  if (!c.eight_bits()) {
    for (int32_t& b : l.bias) b = bias16(b);
  }
  l.view = {n,
            k,
            bits,
            l.weight.data(),
            l.row_sum.data(),
            l.bias.empty() ? nullptr : l.bias.data(),
            l.mantissa.data(),
            l.shift.data()};
  return l;
}

void run_linear(const Case& c, Isa isa, Difference& difference) {
  const Linear l = linear_of(c);
  const int m = static_cast<int>(c.shape("x")[0]);
  std::vector<uint8_t> scratch(linear_scratch_bytes(m, l.view.k));
  if (c.eight_bits()) {
    std::vector<int8_t> y(int64_t{m} * l.view.n);
    linear_s8(c.integers<int8_t>("x").data(), m, l.view, y.data(), scratch.data(), isa);
    difference.add(c, y);
  } else {
    std::vector<int16_t> y(int64_t{m} * l.view.n);
    linear_s16(c.integers<int16_t>("x").data(), m, l.view, y.data(), scratch.data(), isa);
    difference.add(c, y);
  }
}

TEST_F(HtpEmulator, LinearsAreEqual) {
  Difference d;
  for_each_case("linear", [&](const Case& c) {
    if (c.file.contains("bias") && c.eight_bits()) return;
    run_linear(c, Isa::kReference, d);
    run_linear(c, best_isa(), d);
  });
  EXPECT_EQ(d.unequal, 0);
}

// The compiler rescales an 8-bit layer's bias in floats and truncates; now and then it is one less.
TEST_F(HtpEmulator, EightBitLinearsWithBiasDifferByOneInOneOf150) {
  Difference d;
  for_each_case("linear", [&](const Case& c) {
    if (c.file.contains("bias") && c.eight_bits()) run_linear(c, Isa::kReference, d);
  });
  EXPECT_LE(d.largest, 1);
  EXPECT_LE(d.unequal * 150, d.numbers);
}

// ---- Attention ---------------------------------------------------------------------------------

// One head; every token sees all positions, as if each came alone.
template <typename T, typename Y, typename Product>
std::vector<Y> each_row(const std::vector<T>& a, int m, int k, int n, Product product) {
  std::vector<Y> y(int64_t{m} * n);
  for (int i = 0; i < m; ++i) product(a.data() + int64_t{i} * k, y.data() + int64_t{i} * n);
  return y;
}

void run_product(const Case& c, Difference& difference) {
  const int m = static_cast<int>(c.shape("a")[0]), k = static_cast<int>(c.shape("a")[1]);
  const int n = static_cast<int>(c.shape("b")[0]);
  const auto b = c.integers<int8_t>("b");
  const auto a = c.integers<int32_t>("a");
  const double multiplier = snap_multiplier(c.scale("a") * c.scale("b") / c.scale("y"));
  if (c.eight_bits()) return;  // as a linear, below
  const Requant law = make_requant16(multiplier);
  if (*std::max_element(a.begin(), a.end()) > 32767) {
    const AttentionShape s{1, k - 1, k, 1, 1, n};
    difference.add(
        c, each_row<uint16_t, int16_t>(c.integers<uint16_t>("a"), m, k, n, [&](auto* row, auto* y) {
          std::vector<uint8_t> scratch(attention_scratch_bytes(s));
          context_u16s8_s16(row, b.data(), s, law, y, scratch.data(), Isa::kReference);
        }));
  } else {
    const AttentionShape s{1, n - 1, n, 1, 1, k};
    difference.add(
        c, each_row<int16_t, int16_t>(c.integers<int16_t>("a"), m, k, n, [&](auto* row, auto* y) {
          std::vector<uint8_t> scratch(attention_scratch_bytes(s));
          scores_s16s8_s16(row, b.data(), s, law, y, scratch.data(), Isa::kReference);
        }));
  }
}

// An 8-bit product of activations has a linear's law with one multiplier for all columns.
void run_product8(const Case& c, Difference& difference) {
  const int m = static_cast<int>(c.shape("a")[0]), k = static_cast<int>(c.shape("a")[1]);
  const int n = static_cast<int>(c.shape("b")[0]);
  const auto b = c.integers<uint8_t>("b");
  const Requant law = make_requant8(snap_multiplier(c.scale("a") * c.scale("b") / c.scale("y")));
  const std::vector<int32_t> sums(n), mantissa(n, law.mantissa), shift(n, law.shift);
  std::vector<int8_t> y(int64_t{m} * n);
  const LinearWeights w{n, k, 8, b.data(), sums.data(), nullptr, mantissa.data(), shift.data()};
  linear_s8(c.integers<int8_t>("a").data(), m, w, y.data(), nullptr, Isa::kReference);
  difference.add(c, y);
}

TEST_F(HtpEmulator, ProductsOfActivationsAreEqual) {
  Difference d;
  for_each_case("product",
                [&](const Case& c) { c.eight_bits() ? run_product8(c, d) : run_product(c, d); });
  EXPECT_EQ(d.unequal, 0);
}

TEST_F(HtpEmulator, MaskedScoresAreEqualWhereVisible) {
  for_each_case("mask", [](const Case& c) {
    const int m = static_cast<int>(c.shape("a")[0]), n = static_cast<int>(c.shape("a")[1]);
    const AddLaw law = make_add16(c.scale("a"), c.scale("mask"), c.scale("y"));
    const AttentionShape row{1, n - 1, n, m, 1, 1};
    std::vector<int16_t> y(int64_t{m} * n);
    mask_s16(c.integers<int16_t>("a").data(), row, law, c.zero("y"), y.data());
    const auto visible = c.integers<int>("visible"), expected = c.integers<int>("y");
    int64_t unequal = 0;
    for (size_t i = 0; i < y.size(); ++i) unequal += visible[i] == 1 && y[i] != expected[i];
    EXPECT_EQ(unequal, 0) << c.name;
  });
}

TEST_F(HtpEmulator, SoftmaxIsNear) {
  Difference d;
  for_each_case("softmax", [&](const Case& c) {
    const int m = static_cast<int>(c.shape("x")[0]), n = static_cast<int>(c.shape("x")[1]);
    const AttentionShape row{1, n - 1, n, m, 1, 1};
    const ExpTables tables = make_exp_tables(c.scale("x"));
    std::vector<uint16_t> p(int64_t{m} * n);
    softmax_s16_u16(c.integers<int16_t>("x").data(), row, tables.high.data(), tables.low.data(),
                    p.data(), nullptr, Isa::kReference);
    d.add(c, p);
  });
  EXPECT_LE(d.largest, 12);
}

// ---- Elementwise -------------------------------------------------------------------------------

std::vector<int16_t> sum16(const std::vector<int16_t>& a, const std::vector<int16_t>& b,
                           AddLaw law) {
  std::vector<int16_t> y(a.size());
  add_s16(a.data(), b.data(), static_cast<int64_t>(a.size()), law, y.data());
  return y;
}

TEST_F(HtpEmulator, SumsAreEqual) {
  Difference d;
  for_each_case("add", [&](const Case& c) {
    d.add(c, sum16(c.integers<int16_t>("a"), c.integers<int16_t>("b"),
                   make_add16(c.scale("a"), c.scale("b"), c.scale("y"))));
  });
  EXPECT_EQ(d.unequal, 0);
}

template <typename T>
std::vector<T> product(const Case& c) {
  const auto a = c.integers<T>("a"), b = c.integers<T>("b");
  std::vector<T> y(a.size());
  const auto count = static_cast<int64_t>(a.size());
  if constexpr (sizeof(T) == 1) {
    const MulLaw law = make_mul8(c.scale("a"), c.scale("b"), c.scale("y"));
    mul_s8(a.data(), c.zero("a"), b.data(), count, law, y.data());
  } else {
    const MulLaw law = make_mul16(c.scale("a"), c.scale("b"), c.scale("y"));
    mul_s16(a.data(), c.zero("a"), b.data(), count, law, y.data());
  }
  return y;
}

TEST_F(HtpEmulator, ProductsOfNumbersAreEqual) {
  Difference d;
  for_each_case("mul", [&](const Case& c) {
    c.eight_bits() ? d.add(c, product<int8_t>(c)) : d.add(c, product<int16_t>(c));
  });
  EXPECT_EQ(d.unequal, 0);
}

TEST_F(HtpEmulator, ChangesOfWidthAreEqual) {
  Difference d;
  for_each_case("convert", [&](const Case& c) {
    const auto x = c.integers<int16_t>("x");
    if (c.eight_bits()) {
      std::vector<int8_t> y(x.size());
      narrow_s16_s8(x.data(), static_cast<int64_t>(x.size()), y.data());
      d.add(c, y);
    } else {
      std::vector<int16_t> y(x.size());
      widen_s8_s16(c.integers<int8_t>("x").data(), static_cast<int64_t>(x.size()), y.data());
      d.add(c, y);
    }
  });
  EXPECT_EQ(d.unequal, 0);
}

TEST_F(HtpEmulator, RotaryEmbeddingIsEqual) {
  Difference d;
  for_each_case("rope", [&](const Case& c) {
    const auto s = c.shape("x");
    const int tokens = static_cast<int>(s[1]), heads = static_cast<int>(s[2]);
    const int dim = static_cast<int>(s[3]);
    const auto x = c.integers<int16_t>("x");
    const MulLaw law = make_mul16(c.scale("x"), c.scale("table"), c.scale("part"));
    std::vector<int16_t> rotated(x.size()), with_cos(x.size()), with_sin(x.size());
    rotate_half_s16(x.data(), tokens, heads, dim, rotated.data());
    rope_mul_s16(x.data(), c.integers<int16_t>("cos").data(), tokens, 0, heads, dim, law,
                 with_cos.data(), best_isa());
    rope_mul_s16(rotated.data(), c.integers<int16_t>("sin").data(), tokens, 0, heads, dim, law,
                 with_sin.data(), best_isa());
    d.add(c, sum16(with_cos, with_sin, make_add16(c.scale("part"), c.scale("part"), c.scale("y"))));
  });
  EXPECT_EQ(d.unequal, 0);
}

// ---- Functions ---------------------------------------------------------------------------------

TEST_F(HtpEmulator, SiluOf8BitsIsEqual) {
  Difference d;
  for_each_case("silu", [&](const Case& c) {
    if (!c.eight_bits()) return;
    const auto x = c.integers<int8_t>("x");
    std::vector<int8_t> y(x.size());
    table_s8(x.data(), make_silu_table(8, c.scale("x"), c.scale("y"), c.zero("y")).data(),
             static_cast<int64_t>(x.size()), y.data(), best_isa());
    d.add(c, y);
  });
  EXPECT_EQ(d.unequal, 0);
}

TEST_F(HtpEmulator, SiluOf16BitsIsNear) {
  Difference d;
  for_each_case("silu", [&](const Case& c) {
    if (c.eight_bits()) return;
    const auto x = c.integers<int16_t>("x");
    std::vector<int16_t> y(x.size());
    table_s16(x.data(), make_silu_table(16, c.scale("x"), c.scale("y"), c.zero("y")).data(),
              static_cast<int64_t>(x.size()), y.data());
    d.add(c, y);
  });
  EXPECT_LE(d.largest, 2);
}

// The emulator computes in single precision: at a step's edge it falls to the other side.
TEST_F(HtpEmulator, RmsNormDiffersByOneInOneOf1000) {
  Difference d;
  for_each_case("rmsnorm", [&](const Case& c) {
    const int rows = static_cast<int>(c.shape("x")[0]), cols = static_cast<int>(c.shape("x")[1]);
    const RmsNormLaw law = make_rmsnorm(c.scale("x"), c.scale("gamma"), c.scale("y"),
                                        std::stod(c.text("epsilon")), cols);
    std::vector<int16_t> y(int64_t{rows} * cols);
    rmsnorm_s16(c.integers<int16_t>("x").data(), c.integers<int16_t>("gamma").data(), rows, cols,
                law, y.data());
    d.add(c, y);
  });
  EXPECT_LE(d.largest, 1);
  EXPECT_LE(d.unequal * 1000, d.numbers);
}

}  // namespace
}  // namespace qnpu
