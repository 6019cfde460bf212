#include "quant/layerwise.h"

#include <algorithm>

#include "base/status.h"
#include "model/laws.h"
#include "quant/fake_quant.h"
#include "quant/freeze_linear.h"
#include "quant/gptq.h"
#include "quant/matmul.h"
#include "quant/simulator.h"
#include "quant/spill.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

constexpr int64_t kMostRows = 16384;  // of weights that are rounded at once: a head has far more
constexpr double kOutstanding = 8.0;  // times the median norm: tokens beyond count less

// Linears that read one input, next to each other in the node list.
struct Group {
  std::vector<const Node*> linears;
  int begin;     // first of their nodes
  int input;     // site
  int residual;  // site that the output is added to, or -1
};

// Follows the output of a linear through a Convert to an Add: the other summand, or -1.
int residual_of(const Graph& graph, const Node& linear) {
  int site = linear.out;
  for (const Node& node : graph.nodes) {
    if (node.in.empty() || std::find(node.in.begin(), node.in.end(), site) == node.in.end()) {
      continue;
    }
    if (node.op == Op::kConvert) {
      site = node.out;
    } else if (node.op == Op::kAdd) {
      return node.in[0] == site ? node.in[1] : node.in[0];
    } else {
      return -1;
    }
  }
  return -1;
}

// In the order of the nodes: q, k, v; o; gate, up; down of each layer; the head.
std::vector<Group> find_groups(const Graph& graph) {
  std::vector<Group> groups;
  std::map<int, size_t> by_input;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (!rounded_layerwise(graph, node)) continue;
    const auto [found, is_new] = by_input.try_emplace(node.in[0], groups.size());
    if (is_new) groups.push_back({{}, static_cast<int>(i), node.in[0], residual_of(graph, node)});
    groups[found->second].linears.push_back(&node);
  }
  return groups;
}

// One model's view of all windows, advanced together.
class Stream {
 public:
  Stream(const FloatModel& model, const Graph& graph, const std::vector<Window>& windows,
         SiteHook hook)
      : simulator_(model, graph), hook_(std::move(hook)) {
    simulator_.use_fast_products();
    for (const Window& window : windows) {
      const std::vector<int64_t> ids(window.begin(), window.end());
      simulator_.reset();
      values_.push_back(simulator_.embed(torch::tensor(ids, torch::kInt64).unsqueeze(0), hook_));
    }
  }

  void advance(size_t window, int begin, int end) {
    simulator_.reset();
    simulator_.advance(begin, end, values_[window], hook_);
  }

  // [T, cols]
  torch::Tensor value(size_t window, int site) const {
    return values_[window][static_cast<size_t>(site)].squeeze(0);
  }

 private:
  Simulator simulator_;
  SiteHook hook_;
  std::vector<Simulator::Values> values_;
};

// Sums over all tokens; x in units of `unit`, so that 8-bit inputs are exact in bf16.
struct Moments {
  torch::Tensor hessian;     // X_q' X_q  [K, K]
  torch::Tensor difference;  // (X_f - X_q)' X_q  [K, K]
  torch::Tensor residual;    // (R_f - R_q)' X_q  [N, K]

  void add(torch::Tensor& sum, const torch::Tensor& a, const torch::Tensor& b) {
    sum.add_(matmul_bf16(a.t(), b));
  }
};

class Rounder {
 public:
  Rounder(FloatModel& model, Graph& graph, const GptqSpec& spec, const Workers& workers)
      : model_(model), original_(model), graph_(graph), spec_(spec), workers_(workers) {}

  RoundingReports run(const std::vector<Window>& windows,
                      const std::function<void(int, int)>& progress) {
    const torch::NoGradGuard no_grad;
    Stream quantized(model_, graph_, windows, site_quant_hook(graph_));
    std::unique_ptr<Stream> exact;
    if (spec_.feedback) exact = std::make_unique<Stream>(original_, graph_, windows, SiteHook{});
    const std::vector<Group> groups = find_groups(graph_);
    int position = 1;  // the embedding is done
    int done = 0;
    const Group* passed = nullptr;
    for (const Group& group : groups) {
      const Moments moments = collect(quantized, exact.get(), windows.size(), position, group);
      position = group.begin;
      if (passed != nullptr) forget(*passed);
      passed = &group;
      for (const Node* linear : group.linears) round(*linear, group, moments);
      if (progress) progress(++done, static_cast<int>(groups.size()));
    }
    return std::move(reports_);
  }

 private:
  double unit(const Group& group) const {
    const QParams& q = graph_.site(group.input).qparams;
    return q.scale.empty() ? 1.0 : q.scale[0];
  }

  // Weight of each token [T, 1]: an attention sink that no prefix took away is hundreds of times
  // larger than all others, and what a linear does for it must not outweigh the text.
  static torch::Tensor token_weights(const torch::Tensor& x) {
    const torch::Tensor norm = x.norm(2, {-1}, /*keepdim=*/true);
    const double most = kOutstanding * norm.median().item<double>();
    if (most == 0.0) return torch::ones_like(norm);  // nothing is ordinary: no token stands out
    return (most / norm.clamp_min(most)).square();
  }

  // Zeros, of what is wanted.
  Moments moments_of(const Group& group, bool exact) const {
    const int64_t in = graph_.site(group.input).cols;
    const torch::Device device = device_of(model_);
    Moments moments;
    moments.hessian = torch::zeros({in, in}, device);
    if (!exact) return moments;
    moments.difference = torch::zeros({in, in}, device);
    if (group.residual < 0) return moments;
    moments.residual = torch::zeros({graph_.site(group.residual).cols, in}, device);
    return moments;
  }

  Moments collect(Stream& quantized, Stream* exact, size_t windows, int begin, const Group& group) {
    Moments moments = moments_of(group, exact != nullptr);
    const double inverse = 1.0 / unit(group);
    for (size_t w = 0; w < windows; ++w) {
      quantized.advance(w, begin, group.begin);
      if (exact != nullptr) exact->advance(w, begin, group.begin);
      const Stream& model = exact != nullptr ? *exact : quantized;
      torch::Tensor weight = token_weights(model.value(w, group.input));
      if (group.residual >= 0) {
        weight = torch::minimum(weight, token_weights(model.value(w, group.residual)));
      }
      const torch::Tensor x = quantized.value(w, group.input) * inverse;
      const torch::Tensor weighted = x * weight;
      moments.add(moments.hessian, x, weighted);
      if (exact == nullptr) continue;
      moments.add(moments.difference, exact->value(w, group.input) * inverse - x, weighted);
      if (group.residual < 0) continue;
      moments.add(moments.residual,
                  exact->value(w, group.residual) - quantized.value(w, group.residual), weighted);
    }
    for (const auto& sum : {moments.hessian, moments.difference, moments.residual}) {
      if (sum.defined()) workers_.sum(sum);
    }
    return moments;
  }

  // Both streams have passed these linears.
  void forget(const Group& group) {
    for (const Node* linear : group.linears) {
      original_.weights.erase(graph_.site(linear->weight).name);
    }
  }

  // The weights [N, K] that would serve best if they needed no rounding. A linear that is switched
  // off stays so: its output's range was seen without what it would be asked to make up for.
  torch::Tensor target(const torch::Tensor& weight, const Group& group,
                       const Moments& moments) const {
    if (!moments.difference.defined() || !weight.any().item<bool>()) return weight;
    torch::Tensor wish = torch::matmul(weight, moments.difference);
    if (moments.residual.defined()) wish = wish + moments.residual / unit(group);
    const torch::Tensor factor = torch::linalg_cholesky(damped(moments.hessian, spec_.damping));
    const torch::Tensor change = torch::cholesky_solve(wish.t().to(torch::kFloat64), factor);
    return weight + change.t().to(torch::kFloat32).contiguous();
  }

  // Rows are independent of each other. Integers are found on the CPU, one column after another.
  void round(const Node& node, const Group& group, const Moments& moments) {
    Site& site = graph_.sites[static_cast<size_t>(node.weight)];
    torch::Tensor& weight = model_.weights.at(site.name);
    std::vector<torch::Tensor> parts;
    RoundingReport report;
    site.qparams.scale.clear();
    const int64_t most = group.residual < 0 ? kMostRows : site.rows;  // its moments have all rows
    for (int64_t row = 0; row < site.rows; row += most) {
      const int64_t count = std::min(most, site.rows - row);
      const torch::Tensor wished = target(weight.narrow(0, row, count), group, moments);
      const GptqResult result = round_rows(node, wished.cpu().contiguous(), moments);
      parts.push_back(inside_bins(wished, result));
      site.qparams.scale.insert(site.qparams.scale.end(), result.scale.begin(), result.scale.end());
      const double share = static_cast<double>(count) / site.rows;
      report.gptq_error += share * result.gptq_error;
      report.error += share * result.error;
    }
    replace(weight, parts.size() == 1 ? parts.front() : torch::cat(parts));
    reports_[site.name] = report;
  }

  GptqResult round_rows(const Node& node, const torch::Tensor& wished,
                        const Moments& moments) const {
    const Site& site = graph_.site(node.weight);
    const double x_scale = scale_of(graph_, node.in[0]);
    const double y_scale = scale_of(graph_, node.out);
    GptqProblem problem;
    problem.weight = wished;
    problem.hessian = moments.hessian.cpu();
    problem.range = weight_range(site.spec);
    problem.damping = spec_.damping;
    problem.order = spec_.order;
    problem.snap = [=](float scale) { return snap_scale(scale, x_scale, y_scale); };
    std::vector<float> scale(static_cast<size_t>(wished.size(0)));
    weight_scales({wished.data_ptr<float>(), wished.size(0), wished.size(1)}, site.spec,
                  site.rotated, scale.data());
    for (float& s : scale) s = problem.snap(s);
    return gptq(problem, std::move(scale));
  }

  // The wished weights, moved no further than needed to round to the integers chosen.
  static torch::Tensor inside_bins(const torch::Tensor& wished, const GptqResult& result) {
    const torch::Tensor scale = torch::tensor(result.scale).unsqueeze(1).to(wished.device());
    const torch::Tensor center = result.integers.to(wished.options()) * scale;
    const torch::Tensor reach = scale * 0.45;
    return torch::max(torch::min(wished, center + reach), center - reach).contiguous();
  }

  FloatModel& model_;
  FloatModel original_;  // the float stream's: shares all tensors, until it has passed a linear
  Graph& graph_;
  const GptqSpec& spec_;
  const Workers& workers_;
  RoundingReports reports_;
};

}  // namespace

bool rounded_layerwise(const Graph& graph, const Node& node) {
  return node.op == Op::kLinear &&
         (node.layer >= 0 || graph.site(node.weight).qparams.dtype == DType::kS4);
}

RoundingReports round_layerwise(FloatModel& model, Graph& graph, const std::vector<Window>& windows,
                                const GptqSpec& spec,
                                const std::function<void(int done, int total)>& progress,
                                const Workers& workers) {
  std::vector<Window> used = windows;
  if (spec.windows > 0 && spec.windows < used.size()) used.resize(spec.windows);
  return Rounder(model, graph, spec, workers).run(workers.share(used), progress);
}

}  // namespace qnpu
