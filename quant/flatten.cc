#include "quant/flatten.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "quant/channel_pairs.h"
#include "quant/learn/cayley.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr int64_t kRows = 4096;  // at a time
constexpr int kValueSteps = 100;
constexpr double kAngle = 0.3;  // the root mean square of a first step's, in radians
constexpr double kDecay = 0.8;

struct Turned {
  Tensor weight;  // [N, K]
  bool writes;    // the residual stream: columns are turned; else rows
  double rms;     // of the whole matrix
};

double rms_of(const Tensor& w) {
  return std::max(1e-30, std::sqrt(w.square().mean(torch::kFloat64).item<double>()));
}

std::vector<Turned> turned_by_r1(const FloatModel& model, const Graph& graph) {
  std::vector<Turned> result;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear) continue;
    const Site& site = graph.site(node.weight);
    if (site.spec.bitwidth != 4) continue;
    const bool writes = node.name.ends_with("o_proj") || node.name.ends_with("down_proj");
    const Tensor& weight = model.weights.at(site.name);
    result.push_back({weight, writes, writes ? rms_of(weight) : 0.0});
  }
  return result;
}

// Vectors first, first + stride, ... of a matrix: [m, n].
Tensor vectors(const Turned& turned, int64_t first, int64_t stride) {
  const Tensor& w = turned.weight;
  if (turned.writes) return w.slice(1, first, w.size(1), stride).t() / turned.rms;
  const Tensor rows = w.slice(0, first, w.size(0), stride);
  return rows / rows.square().mean(1, /*keepdim=*/true).sqrt().clamp_min(1e-30);
}

struct Sums {
  Tensor gradient;     // of the sum of fourth powers: 4 v' (v R)^3, [n, n] fp32
  double count = 0.0;  // of vectors
};

void add(const std::vector<Tensor>& rows, const Tensor& r, Sums& sums) {
  const Tensor v = torch::cat(rows);
  const Tensor y = torch::matmul(v, r);
  const Tensor cubes = y.square().mul_(y);
  sums.count += static_cast<double>(v.size(0));
  sums.gradient.addmm_(v.t(), cubes, 1, 4);
}

// Of one part of the vectors, and of that this worker's.
void add_part(const std::vector<Turned>& all, const Tensor& r, int part, const Workers& workers,
              Sums& sums) {
  const int64_t first = part + kFlattenParts * workers.rank(),
                stride = kFlattenParts * workers.size();
  std::vector<Tensor> rows;
  int64_t count = 0;
  const auto flush = [&] {
    if (count > 0) add(rows, r, sums);
    rows.clear();
    count = 0;
  };
  for (const Turned& turned : all) {
    rows.push_back(vectors(turned, first, stride));
    release_pages(turned.weight);
    count += rows.back().size(0);
    if (count >= kRows) flush();
  }
  flush();
}

// The mean of all vectors' fourth powers, of all workers. Their sum is that of R times its
// gradient, over 4.
double fourth_powers(const std::vector<Turned>& all, const Tensor& r, const Workers& workers) {
  Sums sums{torch::zeros_like(r)};
  for (int part = 0; part < kFlattenParts; ++part) add_part(all, r, part, workers, sums);
  double powers = (sums.gradient * r).sum(torch::kFloat64).item<double>() / 4;
  workers.sum(powers);
  workers.sum(sums.count);
  return powers / (sums.count * static_cast<double>(r.size(0)));
}

// One step against `gradient`, whose length does not matter: at first by kAngle, then falling along
// a cosine to 0.
void turn_against(const Tensor& gradient, double done, Tensor& r, Tensor& momentum) {
  const Tensor skew = torch::matmul(gradient, r.t());
  const double norm = (skew - skew.t()).norm().item<double>() / 2;
  if (!(norm > 0.0)) return;
  const double length = (1.0 - kDecay) * std::sqrt(static_cast<double>(r.size(0))) / norm;
  const double rate = kAngle * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  cayley_step(r, momentum, gradient * length, rate, kDecay);
}

Tensor flat_residual(const std::vector<Turned>& all, int64_t n, int steps,
                     const std::function<void(int done)>& progress, const Workers& workers) {
  Tensor r = torch::eye(n, all.front().weight.options());
  Tensor momentum = torch::zeros_like(r);
  for (int step = 0; step < steps; ++step) {
    Sums sums{torch::zeros_like(r)};
    add_part(all, r, step % kFlattenParts, workers, sums);
    workers.sum(sums.gradient);
    turn_against(sums.gradient, static_cast<double>(step) / steps, r, momentum);
    progress(step + 1);
  }
  return orthogonalised(r);
}

// R2 of one layer, whose weights R1 turns.
Tensor flat_values(const FloatModel& model, int layer, const Tensor& r1) {
  const std::string attention = in_layer(layer, "self_attn.");
  const int64_t hd = model.config.head_dim;
  Tensor v = model.weights.at(attention + "v_proj.weight");
  Tensor o = model.weights.at(attention + "o_proj.weight");
  if (r1.defined()) {
    const Tensor turn = r1.to(v.options());
    v = torch::matmul(v, turn);
    o = torch::matmul(turn.t(), o);
  }
  const Tensor by_head = v.view({-1, hd, v.size(1)}).transpose(1, 2).reshape({-1, hd});
  const std::vector<Tensor> rows = {by_head / rms_of(v), o.reshape({-1, hd}) / rms_of(o)};
  Tensor r = torch::eye(hd, v.options());
  Tensor momentum = torch::zeros_like(r);
  for (int step = 0; step < kValueSteps; ++step) {
    Sums sums{torch::zeros_like(r)};
    add(rows, r, sums);
    turn_against(sums.gradient, step / double{kValueSteps}, r, momentum);
  }
  return orthogonalised(r);
}

// Those of the worker that found them, in all workers.
void share(Rotations& rotations, const Workers& workers) {
  for (size_t layer = 0; layer < rotations.r2.size(); ++layer) {
    if (!workers.mine(static_cast<int64_t>(layer))) rotations.r2[layer].zero_();
    workers.sum(rotations.r2[layer]);
  }
  if (!rotations.r1.defined()) return;
  if (!workers.first()) rotations.r1.zero_();
  workers.sum(rotations.r1);
}

}  // namespace

Flattening flatten(const FloatModel& model, const Graph& graph, const Recipe& recipe,
                   const WindowProgress& progress, const Workers& workers) {
  const torch::NoGradGuard no_grad;
  const int layers = model.config.num_layers, hd = model.config.head_dim;
  const int steps = recipe.r1 == Rotation::kNone ? 0 : recipe.flatten->steps;
  const int total = steps + (recipe.r2 == Rotation::kNone ? 0 : layers);
  const auto report = [&](int done) {
    if (progress) progress(done, total);
  };
  Flattening result;
  if (steps > 0) {
    const std::vector<Turned> all = turned_by_r1(model, graph);
    const int64_t n = model.config.hidden_size;
    const Tensor identity = torch::eye(n, all.front().weight.options());
    result.before = fourth_powers(all, identity, workers);
    result.rotations.r1 = flat_residual(all, n, steps, report, workers);
    result.after = fourth_powers(all, result.rotations.r1.to(identity.options()), workers);
  }
  for (int layer = 0; layer < layers && recipe.r2 != Rotation::kNone; ++layer) {
    result.rotations.r2.push_back(workers.mine(layer)
                                      ? flat_values(model, layer, result.rotations.r1)
                                      : torch::zeros({hd, hd}, torch::kFloat64));
    report(steps + layer + 1);
  }
  share(result.rotations, workers);
  return result;
}

}  // namespace qnpu
