// What enters a decoder's graph besides the past, and its constants: token ids or the residual
// stream, the mask, positions or their cos and sin, the caches' prefix.
#pragma once

#include <map>
#include <string>

#include "export/decoder_sites.h"

namespace qnpu {

class DecoderInputs : protected DecoderSites {
 protected:
  DecoderInputs(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights);

  void inputs();
  const std::string& ids() const { return ids_; }
  const OnnxTensor& mask() const { return mask_; }  // [1, 1, N, C]
  const OnnxTensor& grouped_mask();                 // [1, 1, H / KV * N, C]
  // The table "rope.cos" or "rope.sin" for the new tokens: [1, N, 1, hd].
  OnnxTensor rope_table(int site);
  // Of a cache, stored [P, KV * hd].
  OnnxTensor prefix(const Site& site, bool keys, const Shape& shape);

  const int64_t past_;  // columns of the caches that come from outside

 private:
  void check_sizes() const;
  void make_mask();  // [1, N, L] -> [1, 1, N, C]

  std::string ids_, positions_;
  OnnxTensor mask_, grouped_mask_;
  std::map<int, OnnxTensor> tables_;  // cos and sin, by site
};

}  // namespace qnpu
