// A tiny model computed exactly, in fp64 and with nothing rounded, behind a prefix: what learners
// of exact transformations are tested on.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "quant/learn/network.h"
#include "quant/test_models.h"

namespace qnpu {

inline NetworkOptions exact() {
  NetworkOptions options;
  options.type = torch::kFloat64;
  options.round_inputs = options.round_weights = options.round_head = false;
  return options;
}

// By the name of a model in testdata.
class ExactModel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    torch::manual_seed(6);
    model_ = load_float_model(tiny_model_folder(GetParam()));
    fold_norms(model_);
    graph_ = build_graph(model_.config, Recipe{});
    const torch::Tensor all =
        load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
    tokens_ = all.narrow(0, 0, 10).view({2, 5});
    add_prefix();
  }

  FloatModel model_;
  Graph graph_;
  torch::Tensor tokens_;

 private:
  // Any rows will do: what is tested is that they are transformed too.
  void add_prefix() {
    const int64_t cols = model_.config.num_kv_heads * model_.config.head_dim;
    model_.prefix.tokens = {1, 2};
    for (const Site& site : graph_.sites) {
      if (site.role == Role::kKCache || site.role == Role::kVCache) {
        model_.prefix.rows[site.name] = torch::randn({2, cols});
      }
    }
  }
};

}  // namespace qnpu
