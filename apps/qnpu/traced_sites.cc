#include "apps/qnpu/traced_sites.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/status.h"
#include "export/onnx_graph.h"

namespace qnpu {
namespace {

// Calls visit(index in ours, index in theirs) for each value that a token can see. T tokens are in
// ours, N >= T rows in theirs; P positions are the prefix's, C those of theirs in all.
class Pairs {
 public:
  Pairs(const Graph& graph, const SiteValues& ours, const Shape& shape, int rows, int context)
      : c_(graph.config),
        site_(graph.site(ours.site)),
        ours_(ours),
        shape_(shape),
        prefix_(graph.prefix_length()),
        rows_(rows),
        context_(context) {}

  template <typename Visit>
  void for_each(Visit visit) const {
    switch (site_.role) {
      case Role::kScores:
        return scores(visit);
      case Role::kKCache:
      case Role::kVCache:
        return cache(visit);
      default:
        return activation(visit);
    }
  }

 private:
  template <typename Visit>
  void activation(Visit visit) const {
    const bool groups = shape_.size() == 4 && shape_[1] == 1 && rows_ > 1;  // [KV, 1, H/KV N, hd]
    for (int64_t t = 0; t < ours_.tokens; ++t) {
      for (int64_t c = 0; c < site_.cols; ++c) {
        const int64_t head = c / c_.head_dim, d = c % c_.head_dim;
        visit(t * site_.cols + c,
              groups ? (head * rows_ + t) * c_.head_dim + d : t * site_.cols + c);
      }
    }
  }

  template <typename Visit>
  void scores(Visit visit) const {
    for (int64_t h = 0; h < c_.num_heads; ++h) {
      for (int64_t t = 0; t < ours_.tokens; ++t) {
        for (int64_t position = 0; position <= ours_.position + t; ++position) {
          // Nothing is in their past: new tokens are the last columns.
          const int64_t column =
              position < prefix_ ? position : context_ - rows_ + (position - prefix_);
          visit((h * ours_.tokens + t) * ours_.row_stride + position,
                (h * rows_ + t) * context_ + column);
        }
      }
    }
  }

  template <typename Visit>
  void cache(Visit visit) const {
    const bool keys = site_.role == Role::kKCache;
    for (int64_t t = 0; t < ours_.tokens; ++t) {
      const int64_t position = ours_.position + t;
      for (int64_t c = 0; c < site_.cols; ++c) {
        const int64_t head = c / c_.head_dim, d = c % c_.head_dim;
        visit(keys ? position * site_.cols + c : c * ours_.row_stride + position,
              keys ? c * rows_ + t : (head * rows_ + t) * c_.head_dim + d);
      }
    }
  }

  const ModelConfig& c_;
  const Site& site_;
  const SiteValues& ours_;
  const Shape& shape_;
  int64_t prefix_, rows_, context_;
};

template <typename Ours, typename Theirs>
SiteDifference compare_values(const Pairs& pairs, Ours* ours, const Theirs* theirs, int half,
                              bool force) {
  SiteDifference result;
  pairs.for_each([&](int64_t i, int64_t j) {
    const int32_t their = static_cast<int32_t>(theirs[j]) - half;
    result.count(int64_t{their} - ours[i]);
    if (force) ours[i] = static_cast<Ours>(their);
  });
  return result;
}

}  // namespace

void SiteDifference::count(int64_t difference) {
  ++values;
  equal += difference == 0;
  largest = std::max(largest, std::abs(difference));
}

void SiteDifference::add(const SiteDifference& other) {
  values += other.values;
  equal += other.equal;
  largest = std::max(largest, other.largest);
}

double SiteDifference::equal_share() const {
  return values == 0 ? 1.0 : static_cast<double>(equal) / static_cast<double>(values);
}

TracedSites::TracedSites(const Graph& graph, int rows, const nlohmann::json& names, int context,
                         TensorFile outputs)
    : graph_(graph), names_(names), rows_(rows), context_(context), outputs_(std::move(outputs)) {}

bool TracedSites::has(int site) const {
  const Site& s = graph_.site(site);
  return s.role == Role::kKCache || s.role == Role::kVCache || outputs_.contains(s.name);
}

const TensorView& TracedSites::tensor(const Site& site) const {
  if (site.role != Role::kKCache && site.role != Role::kVCache) return outputs_.at(site.name);
  const std::string pattern =
      names_.at(site.role == Role::kKCache ? "new_key" : "new_value").get<std::string>();
  return outputs_.at(fmt::format(fmt::runtime(pattern), site.layer));
}

SiteDifference TracedSites::compare(const SiteValues& ours, bool force) const {
  const Site& site = graph_.site(ours.site);
  const TensorView& theirs = tensor(site);
  const Pairs pairs(graph_, ours, theirs.shape, rows_, context_);
  switch (site.qparams.dtype) {
    case DType::kS8:
      return compare_values(pairs, static_cast<int8_t*>(ours.data), theirs.as<uint8_t>().data(),
                            128, force);
    case DType::kS16:
      return compare_values(pairs, static_cast<int16_t*>(ours.data), theirs.as<uint16_t>().data(),
                            32768, force);
    default:
      return compare_values(pairs, static_cast<uint16_t*>(ours.data), theirs.as<uint16_t>().data(),
                            0, force);
  }
}

}  // namespace qnpu
