// Attention in a decoder's graph: caches, scores, mask, softmax, and the weighted sum of values.
//
// The rows of a product are [KV, 1, H / KV * N, ...]. The compiler's time grows tenfold once scores
// no longer fit into the NPU's fast memory as it lays them out, so larger ones are computed in
// pieces of R rows, R a part of N: the same integers, in several tensors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "export/decoder_inputs.h"

namespace qnpu {

class DecoderAttention : protected DecoderInputs {
 protected:
  DecoderAttention(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights);

  void append(const Node& node);  // new rows become outputs; the cache is prefix, past and new ones
  void scores(const Node& node);
  void masked(const Node& node);
  void softmax(const Node& node);
  void context(const Node& node);

 private:
  int64_t pieces() const { return count_ / piece_; }
  std::string piece_name(const std::string& name, int64_t piece) const;
  OnnxTensor mask_piece(int64_t piece);
  // Stores `edges`, one for each piece, at the node's site.
  void store_pieces(const Node& node, const std::vector<std::string>& edges, int64_t cols);

  const int64_t count_;  // H / KV * N
  int64_t piece_;        // R, or count_ if one piece is small enough
  std::map<int, std::vector<OnnxTensor>> placed_pieces_;  // by site
  std::map<int64_t, OnnxTensor> mask_pieces_;             // by their first row
};

}  // namespace qnpu
