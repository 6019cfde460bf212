#include "quant/learn/state.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "base/status.h"
#include "io/safetensors.h"

namespace qnpu {
namespace {

using torch::Tensor;

const char* dtype_of(const Tensor& tensor) {
  return tensor.scalar_type() == torch::kFloat64 ? "F64" : "F32";
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  QNPU_ASSERT(tensor.is_contiguous());
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace

void save_state(const std::filesystem::path& path, const std::string& fingerprint,
                const LearnState& state) {
  std::filesystem::create_directories(path.parent_path());
  std::vector<Tensor> here;  // copies of tensors on other devices
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : state.tensors) {
    here.push_back(tensor.cpu().contiguous());
    tensors.push_back({name, dtype_of(tensor), tensor.sizes().vec(), bytes_of(here.back())});
  }
  const auto add_curve = [&](const std::string& name, const std::vector<double>& curve) {
    here.push_back(torch::tensor(curve, torch::kFloat64));
    tensors.push_back({name, "F64", here.back().sizes().vec(), bytes_of(here.back())});
  };
  add_curve("losses", state.losses);
  for (const auto& [kind, curve] : state.movement) add_curve("movement." + kind, curve);
  write_safetensors(path, tensors,
                    {{"fingerprint", fingerprint}, {"step", std::to_string(state.step)}});
}

bool load_state(const std::filesystem::path& path, const std::string& fingerprint,
                LearnState& state) {
  if (!std::filesystem::exists(path)) return false;
  const TensorFile file = TensorFile::open(path);
  const auto& metadata = file.metadata();
  const auto found = metadata.find("fingerprint");
  if (found == metadata.end() || found->second != fingerprint) {
    fail(
        "{} is the state of another run (other recipe, model, texts or seed): remove it, or give "
        "another folder",
        path.string());
  }
  state.step = std::stoi(metadata.at("step"));
  const auto read_curve = [&](const std::string& name, std::vector<double>& curve) {
    const auto values = file.at(name).as<double>();
    curve.assign(values.begin(), values.end());
  };
  read_curve("losses", state.losses);
  for (auto& [kind, curve] : state.movement) {
    if (state.step > 0) read_curve("movement." + kind, curve);
  }
  for (auto& [name, tensor] : state.tensors) {
    const TensorView& view = file.at(name);
    if (view.shape != tensor.sizes().vec() || view.dtype != dtype_of(tensor)) {
      fail("{}: tensor {} has not the shape that this run needs: remove the file", path.string(),
           name);
    }
    const Tensor stored = torch::from_blob(const_cast<std::byte*>(view.data), tensor.sizes(),
                                           tensor.options().device(torch::kCPU));
    const torch::NoGradGuard no_grad;
    tensor.copy_(stored);
  }
  return true;
}

// FNV-1a (Fowler, Noll, Vo) over 64-bit words, the tail over bytes.
std::string tensor_hash(const Tensor& tensor) {
  const Tensor dense = tensor.cpu().contiguous();
  const std::span<const std::byte> bytes = bytes_of(dense);
  uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](uint64_t word) { hash = (hash ^ word) * 0x100000001b3u; };
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, 8);
    mix(word);
    hash ^= hash >> 29;
  }
  for (; i < bytes.size(); ++i) mix(static_cast<uint64_t>(bytes[i]));
  return fmt::format("{:016x}", hash);
}

std::string run_fingerprint(nlohmann::json settings, const FloatModel& model, const Graph& graph,
                            const std::vector<Window>& windows) {
  nlohmann::json& j = settings;
  for (const auto& [name, weight] : model.weights) j["weights"][name] = tensor_hash(weight);
  for (const auto& [name, rows] : model.prefix.rows) j["prefix"][name] = tensor_hash(rows);
  for (const Site& site : graph.sites) {
    j["sites"].push_back({site.spec.bitwidth, tensor_hash(torch::tensor(site.qparams.scale)),
                          tensor_hash(torch::tensor(site.qparams.zero_point))});
  }
  for (const Window& window : windows) j["windows"].push_back(tensor_hash(torch::tensor(window)));
  const std::string text = j.dump();
  return tensor_hash(torch::tensor(std::vector<uint8_t>(text.begin(), text.end())));
}

}  // namespace qnpu
