// What the tests of this folder share: the tiny models of testdata/models and their goldens, the
// logits that transformers computed (scripts/make_goldens.py).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "quant/simulator.h"
#include "quant/tensor.h"

namespace qnpu {

inline std::filesystem::path source_folder() { return QNPU_SOURCE_DIR; }

inline std::filesystem::path tiny_model_folder(const std::string& name) {
  return source_folder() / "testdata" / "models" / name;
}

// Names of the folders, found by listing, so that a new model is tested without being listed.
inline std::vector<std::string> tiny_models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(tiny_model_folder(""))) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

inline torch::Tensor to_tensor(const TensorView& view) {
  const auto type = view.dtype == "I32" ? torch::kInt32 : torch::kFloat32;
  torch::Tensor tensor = torch::empty(view.shape, type);
  std::memcpy(tensor.data_ptr(), view.data, view.bytes);
  return type == torch::kInt32 ? tensor.to(torch::kInt64) : tensor;
}

struct Golden {
  torch::Tensor tokens;  // [T] int64
  torch::Tensor logits;  // [T, V]
};

inline Golden load_golden(const std::filesystem::path& path) {
  const TensorFile file = TensorFile::open(path);
  return {to_tensor(file.at("tokens")), to_tensor(file.at("logits"))};
}

// Logits [T, V] of tokens [T], appended to what the simulator has seen.
inline torch::Tensor all_logits(Simulator& simulator, const torch::Tensor& tokens) {
  return simulator.logits(simulator.forward(tokens.unsqueeze(0))[0]);
}

inline double max_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

// max |a - b| / max |b|
inline double relative_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return max_difference(a, b) / b.abs().max().item<double>();
}

}  // namespace qnpu
