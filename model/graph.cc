#include "model/graph.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"

namespace qnpu {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 14> kOps = {
    "embedding", "rmsnorm", "convert", "linear", "rotate_half", "rope_mul", "add",
    "mul",       "silu",    "append",  "scores", "mask",        "softmax",  "context"};
constexpr std::array<const char*, 6> kRoles = {"activation", "scores", "k_cache",
                                               "v_cache",    "weight", "table"};
constexpr std::array<const char*, 4> kSources = {"observed", "tied", "fixed", "mask"};

template <typename Enum, size_t N>
Enum enum_from(const std::array<const char*, N>& names, const json& value) {
  const auto text = value.get<std::string>();
  for (size_t i = 0; i < N; ++i) {
    if (text == names[i]) return static_cast<Enum>(i);
  }
  fail("the artifact's graph holds an unknown word '{}'; quantize again", text);
}

json site_to_json(const Site& s) {
  json j = {{"name", s.name},
            {"role", kRoles[static_cast<int>(s.role)]},
            {"layer", s.layer},
            {"cols", s.cols},
            {"dtype", dtype_name(s.qparams.dtype)},
            {"source", kSources[static_cast<int>(s.source)]}};
  if (s.rows != 0) j["rows"] = s.rows;
  if (s.rotated) j["rotated"] = true;
  if (s.tied_to >= 0) j["tied_to"] = s.tied_to;
  if (s.rule >= 0) j["rule"] = s.rule;
  if (s.source == RangeSource::kObserved) {
    j["observer"] = observer_name(s.spec.observer);
    if (s.spec.observer == Observer::kPercentile) j["percentile"] = s.spec.percentile;
  }
  j["symmetric"] = s.spec.symmetric;
  if (s.spec.block_size != 0) {  // the integers are products: 4 bits times a block's multiplier
    j["bits"] = s.spec.bitwidth;
    j["block_size"] = s.spec.block_size;
  }
  if (!s.spec.narrow_range) j["narrow_range"] = false;
  if (s.qparams.axis >= 0) {
    j["axis"] = s.qparams.axis;  // scales per channel are the tensor "<name>.scale"
  } else if (!s.qparams.scale.empty()) {
    j["scale"] = s.qparams.scale[0];
    j["zero_point"] = s.qparams.zero_point.empty() ? 0 : s.qparams.zero_point[0];
  }
  return j;
}

Site site_from_json(const json& j) {
  Site s;
  j.at("name").get_to(s.name);
  s.role = enum_from<Role>(kRoles, j.at("role"));
  j.at("layer").get_to(s.layer);
  j.at("cols").get_to(s.cols);
  s.rows = j.value("rows", 0);
  s.rotated = j.value("rotated", false);
  s.source = enum_from<RangeSource>(kSources, j.at("source"));
  s.tied_to = j.value("tied_to", -1);
  s.rule = j.value("rule", -1);
  s.qparams.dtype = dtype_from_name(j.at("dtype").get<std::string>());
  s.spec.bitwidth = j.value("bits", bitwidth(s.qparams.dtype));
  s.spec.block_size = j.value("block_size", 0);
  s.spec.narrow_range = j.value("narrow_range", true);
  s.spec.symmetric = j.value("symmetric", true);
  if (j.contains("observer")) s.spec.observer = observer_from_name(j.at("observer"));
  s.spec.percentile = j.value("percentile", s.spec.percentile);
  s.qparams.axis = j.value("axis", -1);
  if (j.contains("scale")) {
    s.qparams.scale = {j.at("scale").get<float>()};
    s.qparams.zero_point = {j.at("zero_point").get<int32_t>()};
  }
  return s;
}

json law_to_json(const Law& law) {
  if (const auto* r = std::get_if<Requant>(&law)) {
    return {{"type", "requantize"}, {"mantissa", r->mantissa}, {"shift", r->shift}};
  }
  if (const auto* a = std::get_if<AddLaw>(&law)) {
    return {{"type", "add"}, {"ma", a->ma}, {"mb", a->mb}, {"shift", a->shift}};
  }
  if (const auto* m = std::get_if<MulLaw>(&law)) {
    return {{"type", "mul"}, {"multiplier", m->multiplier}, {"shift", m->shift}};
  }
  if (const auto* n = std::get_if<RmsNormLaw>(&law)) {
    return {{"type", "rmsnorm"},
            {"epsilon", n->epsilon},
            {"mantissa", n->mantissa},
            {"shift", n->shift}};
  }
  return nullptr;
}

Law law_from_json(const json& j) {
  const auto type = j.at("type").get<std::string>();
  if (type == "requantize") return Requant{j.at("mantissa"), j.at("shift")};
  if (type == "add") return AddLaw{j.at("ma"), j.at("mb"), j.at("shift")};
  if (type == "mul") return MulLaw{j.at("multiplier"), j.at("shift")};
  if (type == "rmsnorm") return RmsNormLaw{j.at("epsilon"), j.at("mantissa"), j.at("shift")};
  fail("the artifact's graph holds an unknown law '{}'; quantize again", type);
}

json node_to_json(const Node& n) {
  json j = {
      {"op", op_name(n.op)}, {"name", n.name}, {"layer", n.layer}, {"in", n.in}, {"out", n.out}};
  if (n.weight >= 0) j["weight"] = n.weight;
  if (n.bias) j["bias"] = true;
  if (n.heads != 1) j["heads"] = n.heads;
  if (!std::holds_alternative<std::monostate>(n.law)) j["law"] = law_to_json(n.law);
  return j;
}

Node node_from_json(const json& j) {
  Node n;
  n.op = enum_from<Op>(kOps, j.at("op"));
  j.at("name").get_to(n.name);
  j.at("layer").get_to(n.layer);
  j.at("in").get_to(n.in);
  j.at("out").get_to(n.out);
  n.weight = j.value("weight", -1);
  n.bias = j.value("bias", false);
  n.heads = j.value("heads", 1);
  if (j.contains("law")) n.law = law_from_json(j.at("law"));
  return n;
}

// Every index is in range and every input was written by an earlier node.
void check_order(const Graph& graph) {
  const int count = static_cast<int>(graph.sites.size());
  const auto in_range = [&](int site) { return site >= 0 && site < count; };
  std::set<int> written;
  for (const Node& node : graph.nodes) {
    bool good = in_range(node.out) && (node.weight == -1 || in_range(node.weight));
    for (int in : node.in) good = good && in_range(in) && written.count(in) > 0;
    if (!good) {
      fail("the artifact's graph is damaged at node '{}'; quantize again", node.name);
    }
    written.insert(node.out);
  }
  for (const Site& site : graph.sites) {
    if (site.tied_to != -1 && !in_range(site.tied_to)) {
      fail("the artifact's graph is damaged at site '{}'; quantize again", site.name);
    }
  }
  if (graph.nodes.empty()) fail("the artifact's graph has no nodes; quantize again");
}

void check_prefix(const Graph& graph) {
  for (const int token : graph.prefix_tokens) {
    if (token >= 0 && token < graph.config.vocab_size) continue;
    fail("the artifact's graph is damaged (prefix token {}); quantize again", token);
  }
}

}  // namespace

const char* op_name(Op op) { return kOps[static_cast<int>(op)]; }
const char* role_name(Role role) { return kRoles[static_cast<int>(role)]; }

int Graph::find_site(const std::string& name) const {
  for (size_t i = 0; i < sites.size(); ++i) {
    if (sites[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

TieRoot tie_root(const Graph& graph, int site) {
  double ratio = 1.0;
  while (graph.site(site).source == RangeSource::kTied) {
    const int owner = graph.site(site).tied_to;
    const int from = bitwidth(graph.site(owner).qparams.dtype);
    const int to = bitwidth(graph.site(site).qparams.dtype);
    ratio = std::ldexp(ratio, from - to);
    site = owner;
  }
  return {site, ratio};
}

json graph_to_json(const Graph& graph) {
  json sites = json::array();
  for (const Site& site : graph.sites) sites.push_back(site_to_json(site));
  json nodes = json::array();
  for (const Node& node : graph.nodes) nodes.push_back(node_to_json(node));
  json j = {{"config", to_json(graph.config)}, {"sites", sites}, {"nodes", nodes}};
  if (!graph.prefix_tokens.empty()) j["prefix"] = graph.prefix_tokens;
  return j;
}

Graph graph_from_json(const json& j) {
  Graph graph;
  try {
    graph.config = config_from_json(j.at("config"));
    for (const json& site : j.at("sites")) graph.sites.push_back(site_from_json(site));
    for (const json& node : j.at("nodes")) graph.nodes.push_back(node_from_json(node));
    graph.prefix_tokens = j.value("prefix", std::vector<int>{});
  } catch (const json::exception& e) {
    fail("the artifact's graph is damaged ({}); quantize again", e.what());
  }
  check_order(graph);
  check_prefix(graph);
  return graph;
}

}  // namespace qnpu
