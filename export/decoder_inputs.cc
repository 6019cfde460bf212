#include "export/decoder_inputs.h"

#include <fmt/format.h>

#include "base/status.h"
#include "model/laws.h"

namespace qnpu {
namespace {

constexpr int kMaskZero = 65535;
const Quantized kMaskQuantized = {OnnxType::kU16, static_cast<float>(kMaskScale), kMaskZero};

}  // namespace

DecoderInputs::DecoderInputs(const Artifact& artifact, const DecoderOptions& options,
                             WeightFile& weights)
    : DecoderSites(artifact, options, weights),
      past_(options.context - g_.prefix_length() - options.rows) {
  check_sizes();
}

void DecoderInputs::check_sizes() const {
  const int least = g_.prefix_length() + 2 * rows_;
  if (rows_ >= 1 && least > a_.positions) {
    fail("graphs of {} tokens need a context of {}, but this artifact has {} positions: fewer rows",
         rows_, least, a_.positions);
  }
  if (rows_ < 1 || o_.context < least || o_.context > a_.positions) {
    fail("a graph of {} tokens in a context of {}: this artifact allows contexts of {} to {}",
         rows_, o_.context, least, a_.positions);
  }
}

void DecoderInputs::inputs() {
  if (o_.part.first()) {
    ids_ = out_.integer_input("input_ids", {1, rows_}, OnnxType::kS32);
  } else {
    const int site = residual_into(o_.part, g_);
    const Site& s = g_.site(site);
    placed_[site] = {out_.input(s.name, {rows_, s.cols}, stored_as(s)), Layout::kRows};
  }
  make_mask();
  if (o_.rope == RopeInput::kPositions) {
    positions_ = out_.integer_input(o_.names.positions, {1, rows_}, OnnxType::kS32);
  }
}

void DecoderInputs::make_mask() {
  const int64_t visible = o_.context - g_.prefix_length();
  OnnxTensor mask = out_.input(o_.names.mask, {1, rows_, visible}, kMaskQuantized);
  if (g_.prefix_length() > 0) {
    const int64_t p = g_.prefix_length();
    std::vector<std::byte> ones(static_cast<size_t>(2 * rows_ * p), std::byte{0xff});
    const std::string name = fmt::format("attention_mask.prefix.{}", rows_);
    mask = out_.concat({owned(name, {1, rows_, p}, std::move(ones), kMaskQuantized), mask},
                       "attention_mask.all", 2);
  }
  mask_ = out_.reshape(mask, "attention_mask.rows", {1, 1, rows_, o_.context});
}

const OnnxTensor& DecoderInputs::grouped_mask() {
  if (!grouped_mask_.name.empty()) return grouped_mask_;
  const auto groups = static_cast<size_t>(c_.num_heads / c_.num_kv_heads);
  grouped_mask_ =
      groups == 1 ? mask_
                  : out_.concat(std::vector<OnnxTensor>(groups, mask_), "attention_mask.groups", 2);
  return grouped_mask_;
}

OnnxTensor DecoderInputs::rope_table(int site) {
  const auto found = tables_.find(site);
  if (found != tables_.end()) return found->second;
  const std::string name = g_.site(site).name;  // "rope.cos"
  const int64_t half = c_.head_dim / 2;
  OnnxTensor rows;
  if (o_.rope == RopeInput::kCosSin) {
    rows = out_.input("position_ids_" + name.substr(5), {1, rows_, half}, stored_as(g_.site(site)));
  } else {
    rows = gather(table(site, g_.prefix_length()), positions_, name + ".rows");
  }
  rows = out_.reshape(rows, name + ".heads", {1, rows_, 1, half});
  return tables_[site] = out_.concat({rows, rows}, name + ".both", 3);
}

OnnxTensor DecoderInputs::prefix(const Site& site, bool keys, const Shape& shape) {
  const std::string name = site.name + ".prefix";
  const auto stored = a_.tensors.at(name).as<int8_t>();
  const int64_t p = g_.prefix_length(), kv = c_.num_kv_heads, hd = c_.head_dim;
  std::vector<std::byte> data(stored.size());
  for (int64_t t = 0; t < p; ++t) {
    for (int64_t h = 0; h < kv; ++h) {
      for (int64_t d = 0; d < hd; ++d) {
        const int64_t to = keys ? (h * hd + d) * p + t : (h * p + t) * hd + d;
        data[static_cast<size_t>(to)] =
            static_cast<std::byte>(stored[static_cast<size_t>((t * kv + h) * hd + d)] + 128);
      }
    }
  }
  return owned(name, shape, std::move(data), stored_as(site));
}

}  // namespace qnpu
