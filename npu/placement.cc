#include "npu/placement.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace qnpu {
namespace {

Widths widths_of(const Graph& graph, const Node& node) {
  Widths widths;
  for (const int site : node.in) widths.in.push_back(bitwidth(graph.site(site).qparams.dtype));
  widths.out = bitwidth(graph.site(node.out).qparams.dtype);
  return widths;
}

class Check {
 public:
  Check(const Graph& graph, const Target& target) : g_(graph), t_(target) {}

  std::vector<Misplacement> run(int context, int parts) {
    for (const Node& node : g_.nodes) {
      widths(node);
      zero_points(node);
      if (node.op == Op::kLinear) weight(node);
    }
    memory(context, parts);
    return std::move(found_);
  }

 private:
  void add(const Node& node, int site, std::string reason) {
    found_.push_back({node.name, g_.site(site).name, std::move(reason)});
  }

  void widths(const Node& node) {
    const Widths has = widths_of(g_, node);
    const auto known = t_.operations.find(op_name(node.op));
    if (known == t_.operations.end() || known->second.empty()) {
      return add(node, node.out, fmt::format("{} has no {}", t_.name, op_name(node.op)));
    }
    const std::vector<Widths>& can = known->second;
    if (std::find(can.begin(), can.end(), has) != can.end()) return;
    std::vector<std::string> texts;
    for (const Widths& x : can) texts.push_back(to_text(x));
    add(node, culprit(node, has, can),
        fmt::format("a {} of {} bits, which would become fp16; {} has {}", op_name(node.op),
                    to_text(has), t_.name, fmt::join(texts, " or ")));
  }

  // The first operand in which the node differs from the nearest widths that there are.
  static int culprit(const Node& node, const Widths& has, const std::vector<Widths>& can) {
    int fewest = 1 << 20, site = node.out;
    for (const Widths& x : can) {
      if (x.in.size() != has.in.size()) continue;
      int count = x.out != has.out, first = node.out;
      for (int i = static_cast<int>(x.in.size()) - 1; i >= 0; --i) {
        if (x.in[i] == has.in[i]) continue;
        ++count;
        first = node.in[i];
      }
      if (count < fewest) {
        fewest = count;
        site = first;
      }
    }
    return site;
  }

  // The compiler's integer arithmetic is known, and exact, for these zero points only.
  void zero_points(const Node& node) {
    const bool product = node.op == Op::kScores || node.op == Op::kContext;
    if (!product && node.op != Op::kLinear) return;
    const int site = node.in[product ? 1 : 0];
    if (g_.site(site).spec.symmetric) return;
    if (node.op == Op::kLinear && bitwidth(g_.site(site).qparams.dtype) < 16) return;
    add(node, site,
        product ? "the second operand of a product has a zero point; it must be symmetric"
                : "the 16-bit input of a linear has a zero point; it must be symmetric");
  }

  void weight(const Node& node) {
    const Site& w = g_.site(node.weight);
    const auto in = [](const std::vector<int>& list, int x) {
      return std::find(list.begin(), list.end(), x) != list.end();
    };
    if (!in(t_.weight_bits, w.spec.bitwidth)) {
      add(node, node.weight,
          fmt::format("weights of {} bits; {} has {}", w.spec.bitwidth, t_.name,
                      fmt::join(t_.weight_bits, " or ")));
    }
    if (w.spec.block_size != 0 && !in(t_.weight_blocks, w.spec.block_size)) {
      add(node, node.weight,
          fmt::format("weights in blocks of {}; {} has blocks of {}", w.spec.block_size, t_.name,
                      fmt::join(t_.weight_blocks, " or ")));
    }
  }

  void memory(int context, int parts) {
    const GraphMemory m = graph_memory(g_, context);
    const double part_mb = static_cast<double>(m.total()) / 1e6 / parts;
    if (part_mb <= t_.session_mb) return;
    found_.push_back(
        {"", "",
         fmt::format("weights of {:.0f} MB and caches of {:.0f} MB for {} positions; one "
                     "session of {} maps {:.0f} MB, so {} parts at least (--split)",
                     static_cast<double>(m.weight_bytes) / 1e6,
                     static_cast<double>(m.cache_bytes) / 1e6, context, t_.name, t_.session_mb,
                     std::ceil(static_cast<double>(m.total()) / 1e6 / t_.session_mb))});
  }

  const Graph& g_;
  const Target& t_;
  std::vector<Misplacement> found_;
};

}  // namespace

int64_t weight_bytes(const Site& w) {
  const int64_t count = int64_t{w.rows} * w.cols;
  const int64_t blocks = w.spec.block_size == 0 ? 0 : count / w.spec.block_size;
  return count * w.spec.bitwidth / 8 + blocks + int64_t{4} * w.rows;
}

GraphMemory graph_memory(const Graph& graph, int context) {
  GraphMemory memory;
  for (const Site& site : graph.sites) {
    if (site.role == Role::kWeight) memory.weight_bytes += weight_bytes(site);
    if (site.role == Role::kTable) {
      // cos and sin have a row for each position
      const int64_t rows = site.rows == 0 ? context : site.rows;
      memory.weight_bytes += rows * site.cols * activation_bytes(site.qparams.dtype);
    }
    if (site.role == Role::kKCache || site.role == Role::kVCache) {
      memory.cache_bytes += int64_t{context} * site.cols * activation_bytes(site.qparams.dtype);
    }
  }
  return memory;
}

std::vector<Misplacement> misplaced(const Graph& graph, const Target& target, int context,
                                    int parts) {
  return Check(graph, target).run(context, parts);
}

std::string placement_sentence(const Target& target, const std::vector<Misplacement>& misplaced) {
  constexpr size_t kShown = 3;
  std::vector<std::string> parts;
  for (size_t i = 0; i < std::min(kShown, misplaced.size()); ++i) {
    const Misplacement& m = misplaced[i];
    parts.push_back(m.node.empty()
                        ? m.reason
                        : fmt::format("site '{}' of node '{}': {}", m.site, m.node, m.reason));
  }
  return fmt::format("{} cannot place {} {} of this graph in integers: {}{}", target.name,
                     misplaced.size(), misplaced.size() == 1 ? "part" : "parts",
                     fmt::join(parts, "; "), misplaced.size() > kShown ? "; ..." : "");
}

}  // namespace qnpu
