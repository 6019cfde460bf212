#include "model/laws.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/status.h"

namespace qnpu {
namespace {

bool same(const Law& a, const Law& b) {
  if (a.index() != b.index()) return false;
  if (const auto* r = std::get_if<Requant>(&a)) {
    const auto& o = std::get<Requant>(b);
    return r->mantissa == o.mantissa && r->shift == o.shift;
  }
  if (const auto* s = std::get_if<AddLaw>(&a)) {
    const auto& o = std::get<AddLaw>(b);
    return s->ma == o.ma && s->mb == o.mb && s->shift == o.shift;
  }
  if (const auto* m = std::get_if<MulLaw>(&a)) {
    const auto& o = std::get<MulLaw>(b);
    return m->multiplier == o.multiplier && m->shift == o.shift;
  }
  if (const auto* n = std::get_if<RmsNormLaw>(&a)) {
    const auto& o = std::get<RmsNormLaw>(b);
    return n->epsilon == o.epsilon && n->mantissa == o.mantissa && n->shift == o.shift;
  }
  return true;
}

// Tables are made with functions whose last bit depends on the C library.
template <typename T>
bool near(std::span<const T> stored, const std::vector<T>& made) {
  return std::equal(stored.begin(), stored.end(), made.begin(), made.end(),
                    [](T a, T b) { return std::abs(int64_t{a} - int64_t{b}) <= 1; });
}

bool linear_follows(const Artifact& artifact, const Node& node) {
  const Graph& graph = artifact.graph;
  const bool wide = bitwidth(graph.site(node.in[0]).qparams.dtype) == 16;
  const double x_scale = scale_of(graph, node.in[0]), y_scale = scale_of(graph, node.out);
  const auto scale = artifact.tensors.at(graph.site(node.weight).name + ".scale").as<float>();
  const auto mantissa = artifact.tensors.at(node.name + ".multiplier").as<int32_t>();
  const auto shift = artifact.tensors.at(node.name + ".shift").as<int32_t>();
  for (size_t n = 0; n < scale.size(); ++n) {
    const double m = snap_multiplier(x_scale * scale[n] / y_scale);
    const Requant law = wide ? make_requant16(m) : make_requant8(m);
    if (law.mantissa != mantissa[n] || law.shift != shift[n]) return false;
  }
  return true;
}

// Of operations without a law, which copy integers or shift them by whole bits.
bool scales_tied(const Graph& graph, const Node& node) {
  const int from = bitwidth(graph.site(node.in[0]).qparams.dtype);
  const int to = bitwidth(graph.site(node.out).qparams.dtype);
  return scale_of(graph, node.out) == std::ldexp(scale_of(graph, node.in[0]), from - to);
}

bool follows(const Artifact& artifact, const Node& node) {
  const Graph& graph = artifact.graph;
  const auto tensor = [&](const char* part) { return artifact.tensors.at(node.name + part); };
  switch (node.op) {
    case Op::kLinear:
      return linear_follows(artifact, node);
    case Op::kSilu: {
      const int bits = bitwidth(graph.site(node.in[0]).qparams.dtype);
      return near(tensor(".table").as<int16_t>(),
                  make_silu_table(bits, scale_of(graph, node.in[0]), scale_of(graph, node.out),
                                  graph.site(node.out).qparams.zero_point[0]));
    }
    case Op::kSoftmax: {
      const ExpTables made = make_exp_tables(scale_of(graph, node.in[0]));
      return near(tensor(".exp_high").as<uint32_t>(), made.high) &&
             near(tensor(".exp_low").as<uint32_t>(), made.low);
    }
    case Op::kEmbedding:
      return scale_of(graph, node.weight) == scale_of(graph, node.out);
    case Op::kConvert:
    case Op::kRotateHalf:
    case Op::kAppend:
      return scales_tied(graph, node);
    default:
      return same(node.law, law_from_scales(graph, node));
  }
}

}  // namespace

double scale_of(const Graph& graph, int site) {
  const Site& s = graph.site(site);
  if (s.qparams.scale.empty()) fail("site '{}' has no scale yet", s.name);
  return s.qparams.scale[0];
}

Law law_from_scales(const Graph& graph, const Node& node) {
  const auto in = [&](size_t i) { return scale_of(graph, node.in[i]); };
  const auto out = [&] { return scale_of(graph, node.out); };
  switch (node.op) {
    case Op::kRmsNorm:
      return make_rmsnorm(in(0), scale_of(graph, node.weight), out(), graph.config.rms_norm_eps,
                          graph.site(node.out).cols / node.heads);
    case Op::kRopeMul:
      return make_mul16(in(0), scale_of(graph, node.weight), out());
    case Op::kAdd:
      return make_add16(in(0), in(1), out());
    case Op::kMask:
      return make_add16(in(0), kMaskScale, out());
    case Op::kMul:
      return bitwidth(graph.site(node.out).qparams.dtype) == 8 ? make_mul8(in(0), in(1), out())
                                                               : make_mul16(in(0), in(1), out());
    case Op::kScores:
    case Op::kContext:
      return make_requant16(snap_multiplier(in(0) * in(1) / out()));
    default:
      return {};
  }
}

void check_laws(const Artifact& artifact) {
  for (const Node& node : artifact.graph.nodes) {
    bool good = false;
    try {
      good = follows(artifact, node);
    } catch (const Error&) {  // scales with which there is no law
    }
    if (good) continue;
    fail(
        "site '{}': the integer law that {} holds does not follow from its scales, from which an "
        "NPU's compiler makes its own; quantize the model again",
        artifact.graph.site(node.out).name, (artifact.folder / "graph.json").string());
  }
}

}  // namespace qnpu
