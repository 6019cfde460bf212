#include "quant/learn/loss.h"

#include <algorithm>

#include "quant/learn/ops.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr int64_t kRows = 256;

// `chunk(first, logits, dlogits)` gives the loss of rows first...; their logits become it.
template <typename Chunk>
LossResult by_chunks(const Tensor& hidden, const LinearGroup& head, double factor, Chunk chunk) {
  const torch::NoGradGuard no_grad;
  const auto type = head.codes.scalar_type();
  LossResult result;
  result.rows = hidden.size(0);
  if (factor != 0.0) result.dhidden = torch::empty_like(hidden);
  for (int64_t first = 0; first < hidden.size(0); first += kRows) {
    const int64_t count = std::min(kRows, hidden.size(0) - first);
    const Tensor logits = ops::product(hidden.narrow(0, first, count).to(type), head.codes.t());
    Tensor dlogits = torch::empty(logits.sizes(), logits.options().dtype(type));
    result.sum += chunk(first, logits, dlogits);
    if (factor == 0.0) continue;
    result.dhidden.narrow(0, first, count).copy_(ops::product(dlogits, head.codes));
  }
  return result;
}

}  // namespace

LossResult cross_entropy_loss(const Tensor& hidden, const LinearGroup& head, const Tensor& targets,
                              double factor) {
  const Tensor wanted = targets.to(hidden.device());
  const Tensor counted = (wanted >= 0).nonzero().flatten();
  const Tensor kept = wanted.index_select(0, counted);
  const auto chunk = [&](int64_t first, const Tensor& logits, Tensor& dlogits) {
    const Tensor rows = kept.narrow(0, first, logits.size(0)).contiguous();
    return ops::cross_entropy(logits, head.scale, rows, factor, dlogits);
  };
  LossResult result = by_chunks(hidden.index_select(0, counted), head, factor, chunk);
  if (factor != 0.0) {
    result.dhidden = torch::zeros_like(hidden).index_copy_(0, counted, result.dhidden);
  }
  return result;
}

LossResult kl_loss(const Tensor& hidden, const LinearGroup& head, const Tensor& teacher_hidden,
                   const LinearGroup& teacher_head, double factor) {
  const auto chunk = [&](int64_t first, const Tensor& logits, Tensor& dlogits) {
    const Tensor rows = teacher_hidden.narrow(0, first, logits.size(0));
    const Tensor teacher =
        ops::product(rows.to(teacher_head.codes.scalar_type()), teacher_head.codes.t());
    return ops::kl(logits, head.scale, teacher, teacher_head.scale, factor, dlogits);
  };
  return by_chunks(hidden, head, factor, chunk);
}

LossResult hidden_loss(const Tensor& hidden, const Tensor& teacher_hidden, double factor) {
  const torch::NoGradGuard no_grad;
  const Tensor difference = hidden - teacher_hidden;
  const auto channels = static_cast<double>(hidden.size(1));
  LossResult result;
  result.rows = hidden.size(0);
  result.sum = difference.square().sum(torch::kFloat64).item<double>() / channels;
  if (factor != 0.0) result.dhidden = difference * (2.0 * factor / channels);
  return result;
}

Tensor next_tokens(const Tensor& tokens) {
  Tensor next = torch::full_like(tokens, -1);
  const int64_t t = tokens.size(1);
  next.narrow(1, 0, t - 1).copy_(tokens.narrow(1, 1, t - 1));
  return next.flatten();
}

}  // namespace qnpu
