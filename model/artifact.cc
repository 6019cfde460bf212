#include "model/artifact.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/status.h"
#include "io/files.h"
#include "model/check_graph.h"

namespace qnpu {
namespace {

constexpr char kFormat[] = "quantnpu";
constexpr char kGraphFile[] = "graph.json";
constexpr char kTensorFile[] = "model.safetensors";
constexpr char kAdvice[] = "quantize the model again, or copy the artifact again";

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

// Of everything in graph.json but the checksum itself, in nlohmann's canonical form (sorted keys,
// no white space), so that reformatting the file does no harm.
std::string manifest_checksum(nlohmann::json manifest) {
  manifest.erase("checksum");
  // As write_json writes what is not UTF-8, so that the sum is that of the file.
  const std::string text = json_text(manifest);
  return hex(XXH3_64bits(text.data(), text.size()));
}

// The checksums of many tensors, on all cores: largest first, so that the last ones are short.
std::vector<std::string> tensor_checksums(std::vector<std::span<const std::byte>> data) {
  std::vector<size_t> order(data.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return data[a].size() > data[b].size(); });
  std::vector<std::string> result(data.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < order.size(); i = next++) {
      const auto& bytes = data[order[i]];
      result[order[i]] = hex(XXH3_64bits(bytes.data(), bytes.size()));
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned t = 1; t < std::clamp(std::thread::hardware_concurrency(), 1u, 8u); ++t) {
    threads.emplace_back(work);
  }
  work();
  threads.clear();  // joins
  return result;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// `what` is the file or "the tensors to write".
void check_tensor(const std::string& what, const TensorSpec& need, const std::string& dtype,
                  const std::vector<int64_t>& shape) {
  if (dtype == need.dtype && shape == need.shape) return;
  fail("{}: tensor {} is {} {}, but the graph needs {} {}: {}", what, need.name, dtype,
       shape_text(shape), need.dtype, shape_text(need.shape), kAdvice);
}

// The keys that every artifact has, and the types of those that some have.
bool has_its_keys(const nlohmann::json& manifest) {
  const auto value = [](const nlohmann::json& object, const char* key, nlohmann::json otherwise) {
    return object.value(key, std::move(otherwise));
  };
  const nlohmann::json positions = value(manifest, "positions", 0);
  const nlohmann::json online = value(manifest, "online", nlohmann::json::object());
  return value(manifest, "graph", nullptr).is_object() &&
         value(manifest, "tensors", nullptr).is_object() && positions.is_number_integer() &&
         positions > 0 && positions <= INT32_MAX &&
         value(manifest, "deployable", true).is_boolean() && online.is_object() &&
         value(online, "r3", "none").is_string() && value(online, "r4", "none").is_string() &&
         value(online, "dynamic_activations", false).is_boolean();
}

// The version first: a newer format may keep its checksum elsewhere.
nlohmann::json read_manifest(const std::filesystem::path& file) {
  nlohmann::json manifest;
  try {
    manifest = read_json(file);
  } catch (const Error& error) {
    fail("{}: {}", error.what(), kAdvice);
  }
  if (!manifest.is_object() || manifest.value("format", nlohmann::json()) != kFormat ||
      !manifest.value("version", nlohmann::json()).is_number_integer()) {
    fail("{} is not the graph of a quantnpu artifact: give a folder that `qnpu quantize` made",
         file.string());
  }
  const auto version = manifest["version"].get<int64_t>();
  if (version > kArtifactVersion) {
    fail(
        "{} was made by a newer quantnpu (format {}, this program reads up to {}): update the "
        "program or quantize again",
        file.string(), version, kArtifactVersion);
  }
  if (manifest.value("checksum", nlohmann::json()) != manifest_checksum(manifest)) {
    fail("{} is damaged (its checksum does not fit its content): {}", file.string(), kAdvice);
  }
  if (!has_its_keys(manifest)) {
    fail("{} lacks its graph, tensors or positions, or has a key of the wrong type: {}",
         file.string(), kAdvice);
  }
  return manifest;
}

TensorFile open_tensors(const std::filesystem::path& file) {
  try {
    return TensorFile::open(file);
  } catch (const Error& error) {
    fail("{}: {}", error.what(), kAdvice);
  }
}

// Both files carry the manifest's checksum; two halves of different artifacts differ in it.
void check_pair(const std::filesystem::path& folder, const nlohmann::json& manifest,
                const TensorFile& tensors) {
  const auto found = tensors.metadata().find("checksum");
  if (found == tensors.metadata().end() || manifest["checksum"] != found->second) {
    fail("{} and {} do not belong together (they come from different artifacts): {}",
         (folder / kGraphFile).string(), kTensorFile, kAdvice);
  }
}

void check_contents(const std::string& file, const nlohmann::json& expected,
                    const TensorFile& tensors) {
  std::vector<std::span<const std::byte>> data;
  for (const auto& [name, view] : tensors.tensors()) data.emplace_back(view.data, view.bytes);
  const std::vector<std::string> sums = tensor_checksums(std::move(data));
  size_t i = 0;
  for (const auto& [name, view] : tensors.tensors()) {
    if (expected.value(name, nlohmann::json()) != sums[i++]) {
      fail("{}: tensor {} is damaged (its checksum is not the one in {}): {}", file, name,
           kGraphFile, kAdvice);
    }
  }
}

std::map<std::string, std::string> metadata(const std::string& checksum) {
  return {{"format", kFormat}, {"checksum", checksum}};
}

}  // namespace

bool is_artifact(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(folder / kGraphFile, ignored);
}

int64_t tensor_file_bytes(const Graph& graph, int positions) {
  return safetensors_bytes(required_tensors(graph, positions), metadata(hex(0)));
}

std::string simulated_only(const Artifact& artifact) {
  if (artifact.manifest.value("deployable", true)) return "";
  const nlohmann::json online = artifact.manifest.value("online", nlohmann::json::object());
  const auto at_run_time = [&](const char* rotation) {
    return online.value(rotation, "none") == "none" ? Rotation::kNone : Rotation::kHadamard;
  };
  Recipe recipe;
  recipe.r3 = at_run_time("r3");
  recipe.r4 = at_run_time("r4");
  recipe.dynamic_activations = online.value("dynamic_activations", false);
  const std::string reason = simulated_only(recipe);
  return reason.empty() ? "asks for more than static integers" : reason;
}

std::string simulated_only(const Recipe& recipe) {
  std::vector<std::string> reasons;
  for (const auto& [name, rotation] : {std::pair("R3", recipe.r3), std::pair("R4", recipe.r4)}) {
    if (rotation == Rotation::kNone) continue;
    reasons.push_back(fmt::format("rotates activations at run time ({})", name));
  }
  if (recipe.dynamic_activations) {
    reasons.emplace_back("finds the scales of activations at run time");
  }
  return fmt::format("{}", fmt::join(reasons, " and "));
}

void check_deployable(const Artifact& artifact) {
  const std::string reason = simulated_only(artifact);
  if (reason.empty()) return;
  fail(
      "{} {}, which a static integer graph cannot: it can only be simulated in float, as `qnpu "
      "eval` does",
      artifact.folder.string(), reason);
}

std::shared_ptr<const Artifact> load_artifact(const std::filesystem::path& folder) {
  if (!is_artifact(folder)) {
    fail("{} holds no {}: give a folder that `qnpu quantize` made", folder.string(), kGraphFile);
  }
  auto artifact = std::make_shared<Artifact>();
  artifact->folder = folder;
  artifact->manifest = read_manifest(folder / kGraphFile);
  artifact->tensors = open_tensors(folder / kTensorFile);
  check_pair(folder, artifact->manifest, artifact->tensors);
  artifact->graph = graph_from_json(artifact->manifest["graph"]);
  check_graph(artifact->graph, (folder / kGraphFile).string());
  artifact->manifest.erase("graph");
  artifact->positions = artifact->manifest["positions"].get<int>();

  const std::string file = (folder / kTensorFile).string();
  for (const TensorSpec& need : required_tensors(artifact->graph, artifact->positions)) {
    if (!artifact->tensors.contains(need.name)) {
      fail("{}: tensor {} is missing: {}", file, need.name, kAdvice);
    }
    const TensorView& view = artifact->tensors.at(need.name);
    check_tensor(file, need, view.dtype, view.shape);
  }
  check_contents(file, artifact->manifest["tensors"], artifact->tensors);
  return artifact;
}

void write_artifact(const std::filesystem::path& folder, const Graph& graph,
                    const std::vector<TensorToWrite>& tensors, int positions,
                    nlohmann::json manifest) {
  check_graph(graph, (folder / kGraphFile).string());
  std::map<std::string, const TensorToWrite*> by_name;
  for (const TensorToWrite& tensor : tensors) by_name[tensor.name] = &tensor;
  for (const TensorSpec& need : required_tensors(graph, positions)) {
    const auto found = by_name.find(need.name);
    if (found == by_name.end()) fail("the artifact lacks tensor {}", need.name);
    check_tensor(folder.string(), need, found->second->dtype, found->second->shape);
  }

  std::vector<std::span<const std::byte>> data;
  for (const TensorToWrite& tensor : tensors) data.push_back(tensor.data);
  const std::vector<std::string> sums = tensor_checksums(std::move(data));
  nlohmann::json& table = manifest["tensors"] = nlohmann::json::object();
  for (size_t i = 0; i < tensors.size(); ++i) table[tensors[i].name] = sums[i];
  manifest["format"] = kFormat;
  manifest["version"] = kArtifactVersion;
  manifest["positions"] = positions;
  manifest["graph"] = graph_to_json(graph);
  manifest["checksum"] = manifest_checksum(manifest);

  write_safetensors(folder / kTensorFile, tensors, metadata(manifest["checksum"]));
  write_json(folder / kGraphFile, manifest);
}

}  // namespace qnpu
