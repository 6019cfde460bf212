#include "quant/learn/attention.h"

#include <algorithm>

#include "quant/learn/ops.h"
#include "quant/learn/record.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr int64_t kBlock = 128;  // query positions of one block

// What forward leaves for backward. Heads come before positions, so that a head is contiguous:
// queries [B, KV, T * G, hd], keys and values [B, KV, P + T, hd].
struct Saved {
  AttentionSpec shape;
  Tensor q, k, v, out;
  Tensor log_sums;  // [B, KV, T * G]

  int64_t prefix() const { return shape.prefix_k.defined() ? shape.prefix_k.size(0) : 0; }
};

// One block of one KV head: rows of queries and the positions that the last of them sees.
struct Block {
  int64_t first_row, rows, positions, visible;  // visible: to the first row
};

std::vector<Block> blocks(const Saved& s) {
  std::vector<Block> all;
  const int64_t group = s.shape.group;
  for (int64_t t = 0; t < s.shape.tokens; t += kBlock) {
    const int64_t end = std::min(t + kBlock, s.shape.tokens);
    all.push_back({t * group, (end - t) * group, s.prefix() + end, s.prefix() + t + 1});
  }
  return all;
}

Tensor split_queries(const Tensor& q, const AttentionSpec& s) {
  return q.view({s.batch, s.tokens, s.kv_heads, s.group, s.head_dim})
      .permute({0, 2, 1, 3, 4})
      .reshape({s.batch, s.kv_heads, s.tokens * s.group, s.head_dim})
      .contiguous();
}

Tensor join_queries(const Tensor& q, const AttentionSpec& s) {
  return q.view({s.batch, s.kv_heads, s.tokens, s.group, s.head_dim})
      .permute({0, 2, 1, 3, 4})
      .reshape({s.batch * s.tokens, -1})
      .contiguous();
}

// Keys or values behind the prefix's rows.
Tensor split_rows(const Tensor& x, const Tensor& prefix, const AttentionSpec& s) {
  Tensor rows = x.view({s.batch, s.tokens, s.kv_heads * s.head_dim});
  if (prefix.defined()) {
    const Tensor first = prefix.to(x.scalar_type()).unsqueeze(0).expand({s.batch, -1, -1});
    rows = torch::cat({first, rows}, 1);
  }
  return rows.unflatten(2, {s.kv_heads, s.head_dim}).transpose(1, 2).contiguous();
}

// Without the prefix's rows, which are constants.
Tensor join_rows(const Tensor& x, const AttentionSpec& s, torch::ScalarType type) {
  return x.narrow(2, x.size(2) - s.tokens, s.tokens)
      .transpose(1, 2)
      .reshape({s.batch * s.tokens, -1})
      .to(type)
      .contiguous();
}

// Gradient of the prefix's values, which all sequences share.
Tensor join_prefix(const Tensor& x, const Tensor& prefix) {
  return x.narrow(2, 0, prefix.size(0))
      .sum(0)
      .transpose(0, 1)
      .reshape(prefix.sizes())
      .to(prefix.scalar_type());
}

Saved forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& shape) {
  Saved s{shape,
          split_queries(q, shape),
          split_rows(k, shape.prefix_k, shape),
          split_rows(v, shape.prefix_v, shape),
          {},
          {}};
  s.out = torch::empty_like(s.q);
  std::vector<Tensor> log_sums;
  for (int64_t head = 0; head < shape.batch * shape.kv_heads; ++head) {
    const int64_t b = head / shape.kv_heads;
    const int64_t kv = head % shape.kv_heads;
    for (const Block& block : blocks(s)) {
      const Tensor queries = s.q[b][kv].narrow(0, block.first_row, block.rows);
      const Tensor scores = ops::product(queries, s.k[b][kv].narrow(0, 0, block.positions).t());
      log_sums.push_back(ops::log_sums(scores, block.visible, shape.group, shape.scale));
      const Tensor p = ops::probabilities(scores, block.visible, shape.group, shape.scale,
                                          log_sums.back(), q.scalar_type());
      s.out[b][kv]
          .narrow(0, block.first_row, block.rows)
          .copy_(ops::product(p, s.v[b][kv].narrow(0, 0, block.positions)));
    }
  }
  s.log_sums = torch::cat(log_sums).view({shape.batch, shape.kv_heads, -1});
  return s;
}

struct HeadGradient {
  Tensor dq;      // [T * G, hd], type of q
  Tensor dk, dv;  // [P + T, hd], fp32 (fp64): sums over blocks
};

void block_backward(const Saved& s, int64_t b, int64_t kv, const Block& block, const Tensor& dout,
                    HeadGradient& g) {
  const auto rows = [&](const Tensor& t) { return t.narrow(0, block.first_row, block.rows); };
  const auto seen = [&](const Tensor& t) { return t.narrow(0, 0, block.positions); };
  const Tensor q = rows(s.q[b][kv]);
  const Tensor k = seen(s.k[b][kv]);
  const Tensor grad = rows(dout);
  const Tensor p = ops::probabilities(ops::product(q, k.t()), block.visible, s.shape.group,
                                      s.shape.scale, rows(s.log_sums[b][kv]), q.scalar_type());
  const Tensor delta = ops::row_dots(grad, rows(s.out[b][kv]));
  Tensor dv = seen(g.dv);
  ops::accumulate(ops::product(p.t(), grad), 1.0, dv);
  const Tensor dp = ops::product(grad, seen(s.v[b][kv]).t());
  const Tensor ds =
      ops::softmax_backward(dp, p, block.visible, s.shape.group, s.shape.scale, delta);
  rows(g.dq).copy_(ops::product(ds, k));
  Tensor dk = seen(g.dk);
  ops::accumulate(ops::product(ds.t(), q), 1.0, dk);
}

Tensors backward(const Saved& s, const Tensor& gradient) {
  const Tensor dout = split_queries(gradient, s.shape);
  Tensor dq = torch::empty_like(s.q);
  const auto sums = s.q.options().dtype(s.log_sums.scalar_type());
  const Tensor dk = torch::zeros(s.k.sizes(), sums);
  const Tensor dv = torch::zeros(s.v.sizes(), sums);
  for (int64_t b = 0; b < s.shape.batch; ++b) {
    for (int64_t kv = 0; kv < s.shape.kv_heads; ++kv) {
      HeadGradient g{dq[b][kv], dk[b][kv], dv[b][kv]};
      for (const Block& block : blocks(s)) block_backward(s, b, kv, block, dout[b][kv], g);
    }
  }
  const auto type = s.q.scalar_type();
  Tensors gradients{join_queries(dq, s.shape), join_rows(dk, s.shape, type),
                    join_rows(dv, s.shape, type)};
  if (s.prefix() > 0) gradients.push_back(join_prefix(dv, s.shape.prefix_v));
  return gradients;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& shape) {
  Saved saved;
  Tensor out;
  {
    const torch::NoGradGuard no_grad;
    saved = forward(q, k, v, shape);
    out = join_queries(saved.out, shape);
  }
  Tensors inputs{q, k, v};
  if (saved.prefix() > 0) {
    inputs.push_back(shape.prefix_v);
    saved.shape.prefix_v = shape.prefix_v.detach();
  }
  return record(out, inputs,
                [saved](Tensors g) -> Tensors { return backward(saved, g[0].contiguous()); });
}

}  // namespace qnpu
