// A good artifact whose graph is changed in one way, with its checksums made anew: loading says
// what does not fit.
#include "model/check_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <functional>

#include "base/status.h"
#include "io/files.h"
#include "io/test_folder.h"
#include "model/artifact.h"

namespace qnpu {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Change = std::function<void(json& graph)>;

const std::filesystem::path kArtifacts = QNPU_SOURCE_DIR "/testdata/artifacts";

json& named(json& list, const std::string& name) {
  for (json& entry : list) {
    if (entry["name"] == name) return entry;
  }
  throw std::runtime_error("no " + name);
}
json& site(json& graph, const std::string& name) { return named(graph["sites"], name); }
json& node(json& graph, const std::string& name) { return named(graph["nodes"], name); }

// The change of one key of a site or node.
Change site_key(const char* name, const char* key, const json& value) {
  return [=](json& graph) { site(graph, name)[key] = value; };
}
Change node_key(const char* name, const char* key, const json& value) {
  return [=](json& graph) { node(graph, name)[key] = value; };
}
Change config_key(const char* key, const json& value) {
  return [=](json& graph) { graph["config"][key] = value; };
}

void change_manifest(const std::filesystem::path& from, const std::filesystem::path& to,
                     const std::function<void(json&)>& change) {
  json manifest = read_json(from / "graph.json");
  change(manifest);
  manifest.erase("checksum");
  const std::string text = manifest.dump();
  const std::string sum = fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
  manifest["checksum"] = sum;
  write_json(to / "graph.json", manifest);
  const TensorFile file = TensorFile::open(from / "model.safetensors");
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, view] : file.tensors()) {
    tensors.push_back({name, view.dtype, view.shape, {view.data, view.bytes}});
  }
  write_safetensors(to / "model.safetensors", tensors, {{"format", "quantnpu"}, {"checksum", sum}});
}

std::string error_after(const Change& change) {
  const TestFolder folder;
  change_manifest(kArtifacts / "v1-tiny-llama", folder.path(),
                  [&](json& manifest) { change(manifest["graph"]); });
  return error_of([&] { load_artifact(folder.path()); });
}

TEST(CheckGraph, GoodArtifactsLoad) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kArtifacts)) {
    if (!is_artifact(entry.path())) continue;
    EXPECT_EQ(error_of([&] { load_artifact(entry.path()); }), "") << entry.path();
    ++count;
  }
  EXPECT_GE(count, 4);
  EXPECT_EQ(error_after([](json&) {}), "");  // the checksums made here are right
}

TEST(CheckGraph, Sites) {
  const std::string q = "layers.0.self_attn.q_proj.out";
  const auto expect = [](const Change& change, const char* name, const char* what) {
    EXPECT_THAT(error_after(change), AllOf(HasSubstr("graph.json"), HasSubstr(name),
                                           HasSubstr(what), HasSubstr("quantize")));
  };
  for (const int cols : {-5, 0}) {
    expect(site_key(q.c_str(), "cols", cols), q.c_str(), "a size or layer");
  }
  expect(site_key(q.c_str(), "layer", 2), q.c_str(), "a size or layer");
  expect(site_key("lm_head.weight", "block_size", -1), "lm_head.weight", "a size or layer");
  expect(site_key(q.c_str(), "dtype", "f32"), q.c_str(), "number type");
  expect(site_key("lm_head.weight", "dtype", "s16"), "lm_head.weight", "number type");
  expect(site_key("logits", "role", "weight"), "'logits'", "a size or layer");
  const Change no_scale = [](json& graph) { site(graph, "logits").erase("scale"); };
  expect(no_scale, "'logits'", "no scale");
  for (const double scale : {0.0, -1.0, 1e300}) {
    expect(site_key("logits", "scale", scale), "'logits'", "not positive");
  }
  expect(site_key("logits", "zero_point", 40000), "'logits'", "zero point");
}

TEST(CheckGraph, Ties) {
  const auto tied = [](const char* name) {
    return AllOf(HasSubstr(name), HasSubstr("a scale tied to no site or to itself"));
  };
  EXPECT_THAT(error_after(site_key("logits", "source", "tied")), tied("'logits'"));
  const Change circle = [](json& graph) {
    site(graph, "embed_tokens.weight")["source"] = "tied";
    site(graph, "embed_tokens.weight")["tied_to"] = 3;  // embed_tokens.out, which is tied to it
  };
  EXPECT_THAT(error_after(circle), tied("'embed_tokens.weight'"));
}

TEST(CheckGraph, Nodes) {
  const auto expect = [](const Change& change, const char* name, const char* what) {
    EXPECT_THAT(error_after(change), AllOf(HasSubstr("graph.json"), HasSubstr(name),
                                           HasSubstr(what), HasSubstr("quantize")));
  };
  const auto attention = [](const std::string& part) { return "layers.0.self_attn." + part; };
  const std::string scores = attention("scores"), context = attention("context");
  expect(site_key("layers.0.self_attn.q_rope.out", "cols", 4), "q_rope'", "sizes differ");
  expect(site_key("layers.1.mlp.up_proj.out", "cols", 130), "layers.1.mlp.up_proj'", "weight or");
  expect(node_key(scores.c_str(), "heads", 3), scores.c_str(), "heads");
  expect(node_key("norm", "heads", 1000000000), "'norm'", "heads");
  expect(node_key("norm", "heads", 2), "'norm'", "weight or table");
  expect(node_key("layers.0.self_attn.q_rope.cos", "heads", 2), "q_rope.cos", "heads");
  expect(node_key("norm", "layer", -2), "'norm'", "layer");
  expect(node_key("norm", "weight", 0), "'norm'", "weight or table");
  expect(node_key("norm", "in", {22}), "'norm'", "wrong kind");                    // a cache
  expect(node_key(scores.c_str(), "in", {13, 25}), scores.c_str(), "wrong kind");  // values
  expect(node_key(context.c_str(), "in", {27, 25}), context.c_str(), "wrong node wrote");  // mask
  const Change twice = [](json& graph) {
    const json first = graph["nodes"][0];
    graph["nodes"].insert(graph["nodes"].begin(), first);
  };
  expect(twice, "'embed_tokens'", "another node");
  const Change shorter = [](json& graph) { graph["nodes"].erase(graph["nodes"].size() - 1); };
  EXPECT_THAT(error_after(shorter), HasSubstr("a logit for each of 268 tokens"));
}

TEST(CheckGraph, Config) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, int>>{{"num_kv_heads", 0},
                                                {"num_heads", 0},
                                                {"num_heads", -4},
                                                {"head_dim", 1 << 30},
                                                {"vocab_size", 0},
                                                {"num_layers", INT32_MAX}}) {
    EXPECT_THAT(error_after(config_key(key, value)), HasSubstr("must be from 1 to")) << key;
  }
  EXPECT_THAT(error_after(config_key("num_heads", 64)), HasSubstr("heads that do not fit"));
  EXPECT_THAT(error_after(config_key("num_kv_heads", 1)), HasSubstr("sizes differ"));
  EXPECT_THAT(error_after(config_key("vocab_size", 1000000)), HasSubstr("a weight or table"));
}

TEST(CheckGraph, OneNameIsOneTensor) {
  const Change same = [](json& graph) {
    node(graph, "layers.0.mlp.up_proj")["name"] = "layers.0.self_attn.q_proj";
  };
  EXPECT_THAT(error_after(same), HasSubstr("layers.0.self_attn.q_proj.row_sum in two shapes"));
}

TEST(CheckGraph, KeysOfTheManifest) {
  const TestFolder folder;
  const auto error_with = [&](const char* key, const json& value) {
    change_manifest(kArtifacts / "v1-tiny-llama", folder.path(),
                    [&](json& manifest) { manifest[key] = value; });
    return error_of([&] { load_artifact(folder.path()); });
  };
  EXPECT_THAT(error_with("deployable", "yes"), HasSubstr("wrong type"));
  EXPECT_THAT(error_with("online", "x"), HasSubstr("wrong type"));
  EXPECT_THAT(error_with("online", {{"r3", 1}}), HasSubstr("wrong type"));
  EXPECT_THAT(error_with("positions", int64_t{1} << 40), HasSubstr("wrong type"));
  EXPECT_EQ(error_with("new_key", {{"a", 1}}), "");
}

}  // namespace
}  // namespace qnpu
