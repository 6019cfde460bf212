#include "quant/hadamard.h"

#include <array>
#include <cmath>
#include <numbers>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "quant/random.h"

namespace qnpu {
namespace {

using torch::Tensor;

// ---- Finite fields of p or p^2 elements -------------------------------------------------------

// Element x + y t has the index x + p y, where t^2 = g and g is no square mod p. A prime field has
// y = 0 throughout.
struct Field {
  int p = 0;
  int size = 0;  // p or p^2; 0: not a field that we build
  int g = 0;
};

bool is_prime(int n) {
  for (int d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return n >= 2;
}

int non_square(int p) {
  std::vector<bool> square(p, false);
  for (int x = 0; x < p; ++x) square[x * x % p] = true;
  int g = 1;
  while (g < p && square[g]) ++g;
  return g;
}

Field make_field(int q) {
  if (is_prime(q)) return {q, q, 0};
  const int root = static_cast<int>(std::lround(std::sqrt(static_cast<double>(q))));
  if (root * root == q && root > 2 && is_prime(root)) return {root, q, non_square(root)};
  return {};
}

// chi of every element: 0 of zero, 1 of squares, -1 of all others.
std::vector<int8_t> quadratic_character(const Field& f) {
  std::vector<int8_t> chi(f.size, -1);
  chi[0] = 0;
  for (int a = 1; a < f.size; ++a) {
    const int64_t x = a % f.p, y = a / f.p;
    const int64_t real = (x * x + y * y % f.p * f.g) % f.p;
    const int64_t imaginary = 2 * x * y % f.p;
    chi[real + f.p * imaginary] = 1;
  }
  return chi;
}

// Jacobsthal matrix: Q[i][j] = chi(element j - element i).
Tensor jacobsthal(const Field& f) {
  const std::vector<int8_t> chi = quadratic_character(f);
  Tensor q = torch::empty({f.size, f.size}, torch::kInt8);
  auto out = q.accessor<int8_t, 2>();
  for (int i = 0; i < f.size; ++i) {
    for (int j = 0; j < f.size; ++j) {
      const int x = (j % f.p - i % f.p + f.p) % f.p;
      const int y = (j / f.p - i / f.p + f.p) % f.p;
      out[i][j] = chi[x + f.p * y];
    }
  }
  return q;
}

// [[0, 1], [corner, Q]]: a conference matrix of order q + 1.
Tensor conference(const Field& f, int corner) {
  Tensor c = torch::zeros({f.size + 1, f.size + 1}, torch::kInt8);
  c.narrow(0, 0, 1).narrow(1, 1, f.size).fill_(1);
  c.narrow(1, 0, 1).narrow(0, 1, f.size).fill_(corner);
  c.narrow(0, 1, f.size).narrow(1, 1, f.size).copy_(jacobsthal(f));
  return c;
}

// ---- Constructions: each gives an undefined tensor if it has none for n -----------------------

Tensor paley1(int n) {
  const Field f = make_field(n - 1);
  if (f.size % 4 != 3) return {};
  return torch::eye(n, torch::kInt8) + conference(f, -1);
}

Tensor paley2(int n) {
  const Field f = make_field(n / 2 - 1);
  if (n % 2 != 0 || f.size % 4 != 1) return {};
  const Tensor off = torch::tensor({{1, 1}, {1, -1}}, torch::kInt8);
  const Tensor on = torch::tensor({{1, -1}, {-1, -1}}, torch::kInt8);
  return torch::kron(conference(f, 1), off) + torch::kron(torch::eye(n / 2, torch::kInt8), on);
}

// First rows of circulants A, B, C, D with A A' + B B' + C C' + D D' = 4 w I, found by a search
// over sequences that are constant on the orbits of a multiplier of Z_w (those of 23 and 29 are
// symmetric: Williamson's case).
struct Circulants {
  int w;
  std::array<std::string_view, 4> rows;
};
constexpr std::array<Circulants, 4> kCirculants = {{
    {23,
     {"+-+-++----+--+----++-+-", "+--++-+--++++++--+-++--", "++++-+---++--++---+-+++",
      "+-++++-+++----+++-++++-"}},
    {29,
     {"++--++--+-++------++-+--++--+", "+++--++-+-++------++-+-++--++",
      "+++-+-++---+-++++-+---++-+-++", "+-+++++-+++-+----+-+++-+++++-"}},
    {39,
     {"+-+-++----+--+---+-+-+-++++-+--+++----+", "+-+-++-++-++-----+-+++-+++--+--++++--++",
      "+++--+------+-+-+--+-++-+---++++++-++--", "++--+-+++-++--+++++-++++++---+---+++-++"}},
    {43,
     {"+-++-+--++--++++-+-++-+--+-+----++--++-+--+", "+-+---+-+++--+++-+----++++-+---++---+-+++-+",
      "+++-+-+-+-++----+----++++--+---++--+--+++++",
      "++--+----+-+-+++++---+---+---------++----+-"}},
}};

Tensor circulant(std::string_view row) {
  const int w = static_cast<int>(row.size());
  Tensor c = torch::empty({w, w}, torch::kInt8);
  auto out = c.accessor<int8_t, 2>();
  for (int i = 0; i < w; ++i) {
    for (int j = 0; j < w; ++j) out[i][j] = row[(j - i + w) % w] == '+' ? 1 : -1;
  }
  return c;
}

// With R the reversal of columns:
//    A    BR    CR    DR
//   -BR   A     D'R  -C'R
//   -CR  -D'R   A     B'R
//   -DR   C'R  -B'R   A
Tensor goethals_seidel(int n) {
  for (const Circulants& known : kCirculants) {
    if (n != 4 * known.w) continue;
    const Tensor a = circulant(known.rows[0]), b = circulant(known.rows[1]),
                 c = circulant(known.rows[2]), d = circulant(known.rows[3]);
    const Tensor br = b.flip(1), cr = c.flip(1), dr = d.flip(1);
    const Tensor btr = b.t().flip(1), ctr = c.t().flip(1), dtr = d.t().flip(1);
    return torch::cat({torch::cat({a, br, cr, dr}, 1), torch::cat({-br, a, dtr, -ctr}, 1),
                       torch::cat({-cr, -dtr, a, btr}, 1), torch::cat({-dr, ctr, -btr, a}, 1)},
                      0);
  }
  return {};
}

Tensor doubled(int n) {
  if (n % 2 != 0) return {};
  const Tensor half = hadamard_signs(n / 2);
  if (!half.defined()) return {};
  return torch::cat({torch::cat({half, half}, 1), torch::cat({half, -half}, 1)}, 0);
}

Tensor product(int n) {
  for (int k = 12; k * k <= n; k += 4) {
    if (n % k != 0 || n / k % 4 != 0) continue;
    const Tensor a = hadamard_signs(k);
    if (!a.defined()) continue;
    const Tensor b = hadamard_signs(n / k);
    if (b.defined()) return torch::kron(a, b);
  }
  return {};
}

// By the method of Box and Muller.
Tensor gaussian(int n, uint64_t seed) {
  SplitMix64 random(seed);
  Tensor values = torch::empty({n, n}, torch::kFloat64);
  double* out = values.data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    out[i] = radius * std::cos(2.0 * std::numbers::pi * random.uniform());
  }
  return values;
}

}  // namespace

Tensor hadamard_signs(int n) {
  if (n == 1) return torch::ones({1, 1}, torch::kInt8);
  if (n != 2 && (n <= 0 || n % 4 != 0)) return {};
  for (Tensor (*construct)(int) : {doubled, paley1, paley2, goethals_seidel, product}) {
    const Tensor signs = construct(n);
    if (signs.defined()) return signs;
  }
  return {};
}

Tensor hadamard(int n) {
  const Tensor signs = hadamard_signs(n);
  if (!signs.defined()) {
    fail("No Hadamard matrix of size {} is known to this program: use \"random\" rotations.", n);
  }
  return signs.to(torch::kFloat64) / std::sqrt(static_cast<double>(n));
}

Tensor random_hadamard(int n, uint64_t seed) {
  SplitMix64 random(seed);
  Tensor signs = torch::empty({n, 1}, torch::kFloat64);
  for (int i = 0; i < n; ++i) signs[i] = random.below(2) != 0 ? -1.0 : 1.0;
  return signs * hadamard(n);
}

Tensor random_orthogonal(int n, uint64_t seed) {
  const auto [q, r] = torch::linalg_qr(gaussian(n, seed));
  return q * torch::where(r.diagonal() < 0, -1.0, 1.0);
}

}  // namespace qnpu
