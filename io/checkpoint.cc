// A checkpoint folder: one safetensors file, or an index and its shards.
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "io/files.h"
#include "io/safetensors.h"

namespace qnpu {

namespace {

namespace fs = std::filesystem;

// A folder that may not be looked into counts as empty; it never throws anything but Error.
bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

using WeightMap = std::map<std::string, std::string>;  // tensor name -> shard file

WeightMap read_index(const fs::path& path) {
  const nlohmann::json index = read_json(path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    fail("{} has no weight_map; fetch the checkpoint again", path.string());
  }
  WeightMap map;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    // A shard is a file of the same folder; anything else is a damaged or hostile index.
    if (!shard.is_string() || shard.get<std::string>().empty() ||
        fs::path(shard.get<std::string>()).filename() != shard.get<std::string>()) {
      fail("{}: the tensor {} has no plain shard name; fetch the checkpoint again", path.string(),
           name);
    }
    map[name] = shard;
  }
  if (map.empty()) fail("{}: weight_map is empty; fetch the checkpoint again", path.string());
  return map;
}

[[noreturn]] void fail_no_weights(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    fail("{} is not a readable folder; give a Hugging Face checkpoint folder", folder.string());
  }
  if (is_there(folder / "pytorch_model.bin") || is_there(folder / "pytorch_model.bin.index.json")) {
    fail("{} holds pytorch_model.bin only; save the model as safetensors first", folder.string());
  }
  fail(
      "{} has neither model.safetensors nor model.safetensors.index.json; give a Hugging Face "
      "checkpoint folder",
      folder.string());
}

}  // namespace

TensorFile TensorFile::open_checkpoint(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_there(single)) return open(single);
  if (!is_there(index)) fail_no_weights(folder);

  const WeightMap map = read_index(index);
  TensorFile file;
  file.path_ = folder.string();
  std::set<std::string> shards;
  for (const auto& [name, shard] : map) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!is_there(folder / shard)) {
      fail("{}: the shard {} of its index is missing; fetch it into the same folder",
           folder.string(), shard);
    }
    file.add(folder / shard);
  }
  for (const auto& [name, shard] : map) {
    if (!file.contains(name)) {
      fail("{}: the tensor {} is not in {} as the index says; fetch the checkpoint again",
           folder.string(), name, shard);
    }
  }
  return file;
}

}  // namespace qnpu
