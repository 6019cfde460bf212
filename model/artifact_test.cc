// Artifacts written, read back, and damaged in every way that a copy or a disk can damage them.
#include "model/artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <random>

#include "base/clock.h"
#include "io/files.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

ModelConfig small_config() {
  ModelConfig config;
  config.architecture = "qwen2";
  config.vocab_size = 40;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 1;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_positions = 64;
  config.qkv_bias = true;
  return config;
}

// With a scale for every site: loading asks for them.
Graph scaled(Graph graph) {
  for (Site& site : graph.sites) {
    if (site.role == Role::kWeight) continue;
    site.qparams.scale = {0.5f};
    site.qparams.zero_point = {0};
  }
  return graph;
}

// The tensors that a graph needs, filled with noise: loading looks at no values.
class Content {
 public:
  explicit Content(const Graph& graph, unsigned seed = 1, int positions = 16)
      : graph_(graph), positions_(positions) {
    std::mt19937 random(seed);
    for (const TensorSpec& spec : required_tensors(graph, positions)) {
      size_t bytes = spec.dtype == "I16" ? 2 : spec.dtype == "I8" || spec.dtype == "U8" ? 1 : 4;
      for (const int64_t d : spec.shape) bytes *= static_cast<size_t>(d);
      storage_.emplace_back(bytes);
      for (std::byte& b : storage_.back()) b = static_cast<std::byte>(random());
      tensors.push_back({spec.name, spec.dtype, spec.shape, storage_.back()});
    }
  }
  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_artifact(folder, graph_, tensors, positions_, {{"recipe", {{"name", "test"}}}});
  }
  std::vector<TensorToWrite> tensors;

 private:
  Graph graph_;
  int positions_;
  std::deque<std::vector<std::byte>> storage_;
};

class ArtifactTest : public ::testing::Test {
 protected:
  ArtifactTest() : graph_(scaled(build_graph(small_config(), Recipe{}))) {
    Content(graph_).write(path());
  }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::string load_error() const {
    return error_of([&] { load_artifact(path()); });
  }
  // Without the sync to disk of write_file, which thousands of small damages do not need.
  void overwrite(const char* file, const std::string& text) const {
    std::ofstream(path() / file, std::ios::binary) << text;
  }
  void change_graph(const std::function<void(json&)>& change) const {
    json j = read_json(path() / "graph.json");
    change(j);
    write_json(path() / "graph.json", j);
  }
  void flip_bit(const char* file, size_t position) const {
    std::string text = read_file(path() / file);
    text.at(position) = static_cast<char>(text[position] ^ 4);
    overwrite(file, text);
  }

  TestFolder folder_;
  Graph graph_;
};

TEST_F(ArtifactTest, ReadsWhatWasWritten) {
  const auto artifact = load_artifact(path());
  EXPECT_EQ(artifact->positions, 16);
  EXPECT_EQ(artifact->manifest["recipe"]["name"], "test");
  EXPECT_FALSE(artifact->manifest.contains("graph"));
  EXPECT_EQ(graph_to_json(artifact->graph), graph_to_json(graph_));
  const Content content(graph_);
  for (const TensorToWrite& wanted : content.tensors) {
    const TensorView& got = artifact->tensors.at(wanted.name);
    EXPECT_EQ(got.dtype, wanted.dtype);
    EXPECT_EQ(got.shape, wanted.shape);
    EXPECT_TRUE(std::equal(wanted.data.begin(), wanted.data.end(), got.data)) << wanted.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(got.data) % 64, 0u) << wanted.name;
  }
}

TEST_F(ArtifactTest, SameContentSameBytes) {
  const std::string graph = read_file(path() / "graph.json");
  const std::string tensors = read_file(path() / "model.safetensors");
  Content(graph_).write(path());
  EXPECT_EQ(read_file(path() / "graph.json"), graph);
  EXPECT_EQ(read_file(path() / "model.safetensors"), tensors);
}

TEST_F(ArtifactTest, ReformattingIsHarmless) {
  overwrite("graph.json", read_json(path() / "graph.json").dump());
  EXPECT_EQ(load_error(), "");
}

TEST_F(ArtifactTest, IsArtifact) {
  TestFolder other;
  EXPECT_TRUE(is_artifact(path()));
  EXPECT_FALSE(is_artifact(other.path()));
  EXPECT_FALSE(is_artifact(other.path() / "missing"));
  EXPECT_THAT(error_of([&] { load_artifact(other.path()); }), HasSubstr("holds no graph.json"));
}

TEST_F(ArtifactTest, NewerVersion) {
  change_graph([](json& j) { j["version"] = 7; });
  EXPECT_THAT(load_error(),
              AllOf(HasSubstr("graph.json was made by a newer quantnpu (format 7, this program "
                              "reads up to 2)"),
                    HasSubstr("update the program or quantize again")));
}

TEST_F(ArtifactTest, OtherJson) {
  for (const char* text : {"[]", "{}", R"({"format": "gguf", "version": 1})",
                           R"({"format": "quantnpu", "version": "1"})"}) {
    overwrite("graph.json", text);
    EXPECT_THAT(load_error(), HasSubstr("is not the graph of a quantnpu artifact")) << text;
  }
}

// Every byte of graph.json: whatever a flipped bit does to it, loading says so in one sentence.
TEST_F(ArtifactTest, FlippedBitsInTheGraph) {
  const std::string good = read_file(path() / "graph.json");
  for (size_t i = 0; i < good.size(); i += 13) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 4);
    if (json::accept(bad) && json::parse(bad) == json::parse(good)) continue;  // white space
    overwrite("graph.json", bad);
    EXPECT_THAT(load_error(), HasSubstr("graph.json")) << "byte " << i;
  }
}

TEST_F(ArtifactTest, FlippedBitsInTensors) {
  const size_t size = read_file(path() / "model.safetensors").size();
  // Padding between tensors carries no meaning; the last byte belongs to the last tensor.
  flip_bit("model.safetensors", size - 1);
  EXPECT_THAT(load_error(), AllOf(HasSubstr("model.safetensors: tensor "), HasSubstr("is damaged"),
                                  HasSubstr("quantize the model again")));
  flip_bit("model.safetensors", size - 1);
  EXPECT_EQ(load_error(), "");
}

TEST_F(ArtifactTest, EachTensorIsChecked) {
  const std::string good = read_file(path() / "model.safetensors");
  // The first tensor's place in the file: its bytes are random, so they occur once.
  const Content content(graph_);
  const TensorToWrite& first = content.tensors[0];
  const std::string bytes(reinterpret_cast<const char*>(first.data.data()), first.data.size());
  const size_t at = good.find(bytes);
  ASSERT_NE(at, std::string::npos);
  std::vector<std::pair<std::string, size_t>> starts;
  {
    const TensorFile file = TensorFile::open(path() / "model.safetensors");
    const std::byte* origin = file.at(first.name).data - at;
    for (const auto& [name, view] : file.tensors()) starts.emplace_back(name, view.data - origin);
  }
  for (const auto& [name, start] : starts) {
    std::string bad = good;
    bad[start] = static_cast<char>(bad[start] ^ 128);
    overwrite("model.safetensors", bad);
    EXPECT_THAT(load_error(), HasSubstr(fmt::format("tensor {} is damaged", name)));
  }
}

TEST_F(ArtifactTest, TruncatedFiles) {
  for (const char* file : {"model.safetensors", "graph.json"}) {
    const std::string good = read_file(path() / file);
    for (const double part : {0.0, 0.001, 0.3, 0.999}) {
      overwrite(file, good.substr(0, static_cast<size_t>(part * good.size())));
      EXPECT_THAT(load_error(), AllOf(HasSubstr(file), HasSubstr("quantize the model again")));
    }
    overwrite(file, good);
  }
  EXPECT_EQ(load_error(), "");
}

TEST_F(ArtifactTest, MissingFile) {
  std::filesystem::remove(path() / "model.safetensors");
  EXPECT_THAT(load_error(), HasSubstr("model.safetensors"));
}

TEST_F(ArtifactTest, HalvesOfTwoArtifacts) {
  TestFolder other;
  Content(graph_, /*seed=*/2).write(other.path());
  std::filesystem::copy_file(other.path() / "graph.json", path() / "graph.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(load_error(), AllOf(HasSubstr("graph.json"), HasSubstr("model.safetensors"),
                                  HasSubstr("do not belong together")));
}

TEST_F(ArtifactTest, WritingRefusesWhatCouldNotBeLoaded) {
  Content content(graph_);
  const TensorToWrite last = content.tensors.back();
  content.tensors.pop_back();
  EXPECT_THAT(error_of([&] { content.write(path()); }), HasSubstr("lacks tensor " + last.name));
  content.tensors.push_back(last);
  content.tensors.back().dtype = "U8";
  EXPECT_THAT(error_of([&] { content.write(path()); }),
              HasSubstr("tensor " + last.name + " is U8"));
  content.tensors.back() = last;
  content.tensors.back().shape = {3, 5};
  EXPECT_THAT(error_of([&] { content.write(path()); }),
              AllOf(HasSubstr("tensor " + last.name), HasSubstr("[3, 5]")));
  EXPECT_EQ(load_error(), "");  // what was there is still whole
}

TEST(RequiredTensors, RefusesNodesThatLackSomething) {
  const Graph good = build_graph(small_config(), Recipe{});
  for (size_t i = 0; i < good.nodes.size(); ++i) {
    Graph bad = good;
    if (bad.nodes[i].in.empty()) {
      bad.nodes[i].weight = -1;
    } else {
      bad.nodes[i].in.pop_back();
    }
    EXPECT_THAT(error_of([&] { required_tensors(bad, 16); }), HasSubstr(good.nodes[i].name));
  }
}

TEST(RequiredTensors, OfAPrefix) {
  Graph graph = build_graph(small_config(), Recipe{});
  const auto prefixes = [&] {
    std::vector<std::pair<std::string, std::vector<int64_t>>> found;
    for (const TensorSpec& spec : required_tensors(graph, 16)) {
      if (!spec.name.ends_with(".prefix")) continue;
      EXPECT_EQ(spec.dtype, "I8");
      found.emplace_back(spec.name, spec.shape);
    }
    return found;
  };
  EXPECT_TRUE(prefixes().empty());
  graph.prefix_tokens = {3, 0, 39};
  EXPECT_THAT(prefixes(), ::testing::UnorderedElementsAre(
                              Pair("layers.0.self_attn.k_cache.prefix", ElementsAre(3, 16)),
                              Pair("layers.0.self_attn.v_cache.prefix", ElementsAre(3, 16))));
}

TEST(RequiredTensors, OfEachWidthAndOp) {
  Recipe recipe;
  recipe.rules.push_back({.match = "*.o_proj.weight", .bitwidth = 4});
  recipe.rules.push_back({.match = "*.silu.out", .bitwidth = 16});
  std::map<std::string, std::pair<std::string, std::vector<int64_t>>> specs;
  for (const auto& spec : required_tensors(build_graph(small_config(), recipe), 20)) {
    EXPECT_TRUE(specs.emplace(spec.name, std::make_pair(spec.dtype, spec.shape)).second);
  }
  const auto expect = [&](const char* name, const char* dtype, std::vector<int64_t> shape) {
    EXPECT_EQ(specs[name], std::make_pair(std::string(dtype), std::move(shape))) << name;
  };
  expect("embed_tokens.weight", "I16", {40, 32});
  expect("norm.weight", "I16", {32});
  expect("rope.cos", "I16", {20, 4});
  expect("layers.0.self_attn.q_proj.weight", "I8", {32, 32});
  expect("layers.0.self_attn.q_proj.weight.scale", "F32", {32});
  expect("layers.0.self_attn.k_proj.bias", "I32", {16});
  expect("layers.0.self_attn.k_proj.row_sum", "I32", {16});
  expect("layers.0.self_attn.o_proj.weight", "U8", {32, 16});
  expect("layers.0.self_attn.softmax.exp_low", "U32", {256});
  expect("layers.0.mlp.silu.table", "I16", {65536});
  EXPECT_FALSE(specs.count("layers.0.self_attn.o_proj.bias"));
}

// 140 MB, from a warm page cache, in well under the 50 ms that a start may take. Sanitizers and
// busy machines are slow, so the test only prints the time and refuses the absurd.
TEST(ArtifactSpeed, LargeArtifact) {
  ModelConfig config = small_config();
  config.vocab_size = 50000;
  config.hidden_size = 1024;
  config.head_dim = 256;
  config.intermediate_size = 1536;
  const Graph graph = scaled(build_graph(config, Recipe{}));
  TestFolder folder;
  Content(graph).write(folder.path());
  load_artifact(folder.path());
  const auto start = Clock::now();
  const auto artifact = load_artifact(folder.path());
  const double ms = 1e3 * seconds_since(start);
  size_t bytes = 0;
  for (const auto& [name, view] : artifact->tensors.tensors()) bytes += view.bytes;
  std::printf("%zu MB loaded and checked in %.1f ms\n", bytes >> 20, ms);
  EXPECT_LT(ms, 5000.0);
}

}  // namespace
}  // namespace qnpu
