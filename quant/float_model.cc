#include "quant/float_model.h"

#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "base/status.h"
#include "io/safetensors.h"
#include "model/graph.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

using Checkpoint = std::map<std::string, const TensorView*>;  // by site name

struct Expected {
  std::string name;
  std::vector<int64_t> shape;
};

// What the nodes of the model's graph read; constant tables (cos and sin) are not in a checkpoint.
std::vector<Expected> expected_tensors(const ModelConfig& config) {
  const Graph graph = build_graph(config, Recipe{});
  std::vector<Expected> expected;
  for (const Node& node : graph.nodes) {
    if (node.weight < 0 || node.op == Op::kRopeMul) continue;
    const Site& site = graph.site(node.weight);
    if (node.op == Op::kRmsNorm) {
      expected.push_back({site.name, {site.cols}});
    } else {
      expected.push_back({site.name, {site.rows, site.cols}});
    }
    if (node.bias) expected.push_back({node.name + ".bias", {site.rows}});
  }
  return expected;
}

// Site names are those of Hugging Face without "model.".
Checkpoint by_site_name(const TensorFile& file) {
  const std::string prefix = "model.";
  Checkpoint checkpoint;
  for (const auto& [name, view] : file.tensors()) {
    const std::string site = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    if (!checkpoint.emplace(site, &view).second) {
      fail("{} holds the tensor {} twice, with and without {}", file.path(), site, prefix);
    }
  }
  return checkpoint;
}

torch::ScalarType float_type(const std::string& name, const TensorView& view,
                             const std::string& path) {
  if (view.dtype == "F32") return torch::kFloat32;
  if (view.dtype == "F16") return torch::kFloat16;
  if (view.dtype == "BF16") return torch::kBFloat16;
  fail("Tensor {} of {} has the type {}: give a checkpoint in F32, F16 or BF16.", name, path,
       view.dtype);
}

torch::Tensor load_tensor(const Checkpoint& checkpoint, const Expected& expected,
                          const std::string& path) {
  const auto found = checkpoint.find(expected.name);
  if (found == checkpoint.end()) {
    fail(
        "Tensor {} is missing from {}: the checkpoint is incomplete, or is not what its "
        "config.json says.",
        expected.name, path);
  }
  const TensorView& view = *found->second;
  if (view.shape != expected.shape) {
    fail("Tensor {} of {} has the shape [{}], but config.json makes it [{}].", expected.name, path,
         fmt::join(view.shape, ", "), fmt::join(expected.shape, ", "));
  }
  const torch::Tensor stored = torch::from_blob(const_cast<std::byte*>(view.data), view.shape,
                                                float_type(expected.name, view, path));
  torch::Tensor tensor = stored.to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
  const auto [low, high] = torch::aminmax(tensor);  // NaN if one is
  if (!std::isfinite(low.item<float>()) || !std::isfinite(high.item<float>())) {
    fail("Tensor {} of {} holds a NaN or an infinity: the checkpoint is damaged.", expected.name,
         path);
  }
  return tensor;
}

// Of all of them in fp32. The head has weights of its own, once norms are folded.
int64_t bytes_of(const std::vector<Expected>& tensors) {
  int64_t elements = 0;
  for (const Expected& tensor : tensors) {
    elements +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  }
  return elements * static_cast<int64_t>(sizeof(float));
}

// Weights that the graph would silently leave out: more layers than config.json says, biases it
// does not mention, adapters. Buffers such as rotary_emb.inv_freq are harmless.
void check_nothing_left_out(const Checkpoint& checkpoint, const FloatModel& model,
                            const std::string& path) {
  for (const auto& [name, view] : checkpoint) {
    const std::string part = name.substr(0, name.find('.'));
    const bool of_model =
        part == "layers" || part == "lm_head" || part == "norm" || part == "embed_tokens";
    const bool parameter =
        name.ends_with(".weight") || name.ends_with(".bias") || name.find("lora_") != name.npos;
    if (of_model && parameter && model.weights.count(name) == 0) {
      fail("Tensor {} of {} has no place in the {} model of {} layers that config.json describes.",
           name, path, model.config.architecture, model.config.num_layers);
    }
  }
}

// Files may hold the tied head too. If it is another matrix, versions of transformers differ in
// which of the two they take.
void check_tied_head(const Checkpoint& checkpoint, const std::string& path) {
  const auto head = checkpoint.find("lm_head.weight");
  const auto embedding = checkpoint.find("embed_tokens.weight");
  if (head == checkpoint.end() || embedding == checkpoint.end()) return;
  const TensorView &a = *head->second, &b = *embedding->second;
  if (a.dtype == b.dtype && a.bytes == b.bytes && std::memcmp(a.data, b.data, a.bytes) == 0) return;
  fail(
      "{} has a tensor lm_head.weight that differs from embed_tokens.weight, but config.json ties "
      "them; set tie_word_embeddings to false if the head is to be used, or remove the tensor",
      path);
}

// transformers would load the base model that the adapter names, and add the adapter to it.
void refuse_adapter(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder / "adapter_config.json", error)) return;
  fail(
      "{} holds an adapter (adapter_config.json), which is not supported; merge it into its base "
      "model, or remove that file if that is done",
      folder.string());
}

}  // namespace

int64_t float_bytes(const ModelConfig& config) { return bytes_of(expected_tensors(config)); }

FloatModel load_float_model(const std::filesystem::path& folder, const std::filesystem::path& spill,
                            int64_t most_in_memory) {
  refuse_adapter(folder);
  FloatModel model;
  model.config = load_config(folder / "config.json");
  model.attention_scale = 1.0 / std::sqrt(static_cast<double>(model.config.head_dim));
  const TensorFile file = TensorFile::open_checkpoint(folder);
  const Checkpoint checkpoint = by_site_name(file);
  const std::vector<Expected> tensors = expected_tensors(model.config);
  const bool spills = !spill.empty() && bytes_of(tensors) > most_in_memory;
  for (const Expected& expected : tensors) {
    if (expected.name == "lm_head.weight" && model.config.tied_embeddings) continue;
    const torch::Tensor tensor = load_tensor(checkpoint, expected, file.path());
    const bool to_file = spills && tensor.dim() == 2;  // norms and biases are small
    model.weights[expected.name] = to_file ? spilled(tensor, spill) : tensor;
  }
  if (model.config.tied_embeddings) {
    check_tied_head(checkpoint, file.path());
    model.weights["lm_head.weight"] = model.weights.at("embed_tokens.weight");
  }
  check_nothing_left_out(checkpoint, model, file.path());
  return model;
}

FloatModel moved(FloatModel model, torch::Device device) {
  for (auto* tensors : {&model.weights, &model.prefix.rows, &model.online}) {
    for (auto& [name, tensor] : *tensors) tensor = tensor.to(device);
  }
  return model;
}

torch::Device device_of(const FloatModel& model) {
  return model.weights.empty() ? torch::kCPU : model.weights.begin()->second.device();
}

}  // namespace qnpu
