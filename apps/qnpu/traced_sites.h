// The integers that an exported graph has at a site, in the order in which the integer runtime
// keeps them: another's values can be compared with ours, and put in their place.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/safetensors.h"
#include "runtime/session.h"

namespace qnpu {

// What a comparison of one site found, over the values that a token can see.
struct SiteDifference {
  int64_t values = 0;
  int64_t equal = 0;
  int64_t largest = 0;  // in steps

  void count(int64_t difference);  // of one value
  void add(const SiteDifference& other);
  double equal_share() const;
};

// The outputs of one run of an exported graph that traces (decoder.h), for a sequence's first
// tokens, no more of them than the graph has rows.
class TracedSites {
 public:
  // `names` is that of export.json.
  TracedSites(const Graph& graph, int rows, const nlohmann::json& names, int context,
              TensorFile outputs);

  bool has(int site) const;
  // Compares; with `force`, ours become theirs. The session's position must have been the start.
  SiteDifference compare(const SiteValues& ours, bool force) const;

 private:
  const TensorView& tensor(const Site& site) const;

  const Graph& graph_;
  nlohmann::json names_;
  int rows_;
  int context_;
  TensorFile outputs_;
};

}  // namespace qnpu
