// The sites of a decoder while its graph is written: which tensor holds each, in which layout, and
// how it comes into another one. The base of decoder.cc's writer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "export/decoder.h"

namespace qnpu {

class DecoderSites {
 protected:
  enum class Layout {
    kRows,    // [T, cols]
    kHeads,   // [1, T, heads, head_dim]: the same order
    kGroups,  // [KV, 1, heads per KV * T, ...]
  };
  struct Placed {
    OnnxTensor tensor;
    Layout layout = Layout::kRows;
  };

  DecoderSites(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights);

  const OnnxTensor& at(int site) const { return placed_.at(site).tensor; }
  Layout layout(int site) const { return placed_.at(site).layout; }
  int heads_of(int site) const { return g_.site(site).cols / c_.head_dim; }
  void place(int site, OnnxTensor tensor, Layout layout);
  // The result of a node's operation at its output site.
  void store(const Node& node, const std::string& edge, const Shape& shape, Layout layout);

  OnnxTensor rows(int site);
  OnnxTensor heads(int site);
  OnnxTensor groups(int site);  // [1, N, H, hd] -> [KV, 1, H / KV * N, hd]

  // A constant activation whose bytes are made here.
  OnnxTensor owned(const std::string& name, const Shape& shape, std::vector<std::byte> data,
                   const Quantized& q);
  OnnxTensor table(int site, int64_t first = 0);  // rows [first, ...) of an int16 table
  OnnxTensor gather(const OnnxTensor& from, const std::string& indices, const std::string& name);

  const Artifact& a_;
  const Graph& g_;
  const ModelConfig& c_;
  const DecoderOptions& o_;
  WeightFile& weights_;
  OnnxGraph out_;
  const int64_t rows_;  // N
  std::map<int, Placed> placed_;

 private:
  std::map<int, OnnxTensor> by_heads_;
};

}  // namespace qnpu
