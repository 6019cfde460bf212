#include "export/decoder_attention.h"

#include <fmt/format.h>

namespace qnpu {
namespace {

constexpr int64_t kLeastRows = 8;

}  // namespace

DecoderAttention::DecoderAttention(const Artifact& artifact, const DecoderOptions& options,
                                   WeightFile& weights)
    : DecoderInputs(artifact, options, weights),
      count_(c_.num_heads / c_.num_kv_heads * rows_),
      piece_(count_) {
  const auto large = [&] { return c_.num_kv_heads * piece_ * o_.context > o_.most_scores; };
  if (large()) piece_ = rows_;
  while (large() && piece_ % 2 == 0 && piece_ > kLeastRows) piece_ /= 2;
}

std::string DecoderAttention::piece_name(const std::string& name, int64_t piece) const {
  return pieces() == 1 ? name : fmt::format("{}.rows{}", name, piece * piece_);
}

// All heads have the same mask.
OnnxTensor DecoderAttention::mask_piece(int64_t piece) {
  if (pieces() == 1) return grouped_mask();
  const int64_t begin = piece * piece_ % rows_;
  if (piece_ == rows_) return mask();
  OnnxTensor& made = mask_pieces_[begin];
  if (made.name.empty()) {
    made =
        out_.slice(mask(), fmt::format("attention_mask.rows{}", begin), 2, begin, begin + piece_);
  }
  return made;
}

void DecoderAttention::store_pieces(const Node& node, const std::vector<std::string>& edges,
                                    int64_t cols) {
  const Site& site = g_.site(node.out);
  std::vector<OnnxTensor>& made = placed_pieces_[node.out];
  for (size_t i = 0; i < edges.size(); ++i) {
    made.push_back(out_.stored(edges[i], piece_name(site.name, i),
                               {c_.num_kv_heads, 1, piece_, cols}, stored_as(site)));
  }
  if (made.size() == 1) return place(node.out, made[0], Layout::kGroups);
  if (node.op == Op::kContext || o_.trace) {
    place(node.out, out_.concat(made, site.name, 2), Layout::kGroups);
  }
}

void DecoderAttention::append(const Node& node) {
  const Site& site = g_.site(node.out);
  const bool keys = site.role == Role::kKCache;
  const int64_t kv = c_.num_kv_heads, hd = c_.head_dim;
  const auto shape = [&](int64_t count) {
    return keys ? Shape{kv, 1, hd, count} : Shape{kv, 1, count, hd};
  };
  const auto name = [&](const std::string& pattern) {
    return fmt::format(fmt::runtime(pattern), node.layer);
  };
  const std::string new_name = name(keys ? o_.names.new_key : o_.names.new_value);
  const OnnxTensor x = heads(node.in[0]);
  const OnnxTensor added = rows_ == 1
                               ? out_.reshape(x, new_name, shape(1))
                               : out_.transpose(x, new_name, {2, 0, keys ? 3 : 1, keys ? 1 : 3});
  out_.output(added);
  std::vector<OnnxTensor> parts;
  if (g_.prefix_length() > 0) parts.push_back(prefix(site, keys, shape(g_.prefix_length())));
  parts.push_back(out_.input(name(keys ? o_.names.past_key : o_.names.past_value), shape(past_),
                             stored_as(site)));
  parts.push_back(added);
  placed_[node.out] = {out_.concat(parts, site.name, keys ? 3 : 2), Layout::kGroups};
}

void DecoderAttention::scores(const Node& node) {
  const OnnxTensor q = groups(node.in[0]);
  const std::string keys = out_.real(at(node.in[1]));
  std::vector<std::string> edges;
  for (int64_t i = 0; i < pieces(); ++i) {
    const OnnxTensor rows =
        pieces() == 1 ? q : out_.slice(q, piece_name(q.name, i), 2, i * piece_, (i + 1) * piece_);
    edges.push_back(out_.op("MatMul", piece_name(node.name, i), {out_.real(rows), keys}));
  }
  store_pieces(node, edges, o_.context);
}

void DecoderAttention::masked(const Node& node) {
  std::vector<std::string> edges;
  for (const OnnxTensor& x : placed_pieces_.at(node.in[0])) {
    const auto i = std::ssize(edges);
    edges.push_back(
        out_.op("Add", piece_name(node.name, i), {out_.real(x), out_.real(mask_piece(i))}));
  }
  store_pieces(node, edges, o_.context);
}

void DecoderAttention::softmax(const Node& node) {
  std::vector<std::string> edges;
  for (const OnnxTensor& x : placed_pieces_.at(node.in[0])) {
    edges.push_back(out_.op("Softmax", piece_name(node.name, std::ssize(edges)), {out_.real(x)},
                            {{"axis", int64_t{-1}}}));
  }
  store_pieces(node, edges, o_.context);
}

void DecoderAttention::context(const Node& node) {
  const std::string values = out_.real(at(node.in[1]));
  std::vector<std::string> edges;
  for (const OnnxTensor& x : placed_pieces_.at(node.in[0])) {
    edges.push_back(
        out_.op("MatMul", piece_name(node.name, std::ssize(edges)), {out_.real(x), values}));
  }
  store_pieces(node, edges, c_.head_dim);
}

}  // namespace qnpu
