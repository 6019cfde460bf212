// Checkpoints that cannot be used are refused with one sentence that names the tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <limits>

#include "io/test_folder.h"
#include "quant/float_model.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

struct Stored {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;
};
using Tensors = std::map<std::string, Stored>;

Tensors read_all(const std::filesystem::path& file) {
  Tensors tensors;
  const TensorFile opened = TensorFile::open(file);
  for (const auto& [name, view] : opened.tensors()) {
    tensors[name] = {view.dtype, view.shape, {view.data, view.data + view.bytes}};
  }
  return tensors;
}

void write_all(const std::filesystem::path& file, const Tensors& tensors) {
  std::vector<TensorToWrite> list;
  for (const auto& [name, t] : tensors) list.push_back({name, t.dtype, t.shape, t.data});
  write_safetensors(file, list);
}

// What loading says of tiny-llama after a change to its tensors.
std::string error_after(const std::function<void(Tensors&)>& change) {
  const auto source = tiny_model_folder("tiny-llama");
  const TestFolder folder;
  std::filesystem::copy_file(source / "config.json", folder.path() / "config.json");
  Tensors tensors = read_all(source / "model.safetensors");
  change(tensors);
  write_all(folder.path() / "model.safetensors", tensors);
  return error_of([&] { load_float_model(folder.path()); });
}

const std::string kDown = "model.layers.1.mlp.down_proj.weight";
const std::string kDownSite = "layers.1.mlp.down_proj.weight";

TEST(FloatModel, UnchangedCopyLoads) {
  EXPECT_THAT(error_after([](Tensors&) {}), IsEmpty());
}

TEST(FloatModel, TiedHeadIsTheEmbedding) {
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  EXPECT_TRUE(model.weights.at("lm_head.weight").is_same(model.weights.at("embed_tokens.weight")));
  EXPECT_EQ(model.attention_scale, 0.25);
}

TEST(FloatModel, ShardsTypesAndBiasesLoadAsFp32) {
  for (const std::string& name : tiny_models()) {
    const FloatModel model = load_float_model(tiny_model_folder(name));
    for (const auto& [tensor, value] : model.weights) {
      EXPECT_EQ(value.scalar_type(), torch::kFloat32) << name << " " << tensor;
    }
    EXPECT_EQ(model.weights.count("layers.0.self_attn.q_proj.bias"), model.config.qkv_bias);
    EXPECT_EQ(model.weights.count("layers.0.self_attn.q_norm.weight"), model.config.qk_norm);
  }
}

TEST(FloatModel, MissingTensor) {
  EXPECT_THAT(error_after([](Tensors& t) { t.erase(kDown); }),
              AllOf(HasSubstr(kDownSite), HasSubstr("missing")));
}

TEST(FloatModel, WrongShape) {
  EXPECT_THAT(error_after([](Tensors& t) { std::swap(t[kDown].shape[0], t[kDown].shape[1]); }),
              AllOf(HasSubstr(kDownSite), HasSubstr("[128, 64]"), HasSubstr("[64, 128]")));
}

TEST(FloatModel, NanAndInfinity) {
  for (const uint16_t bad : {0x7e00, 0x7c00, 0xfc00}) {  // fp16: NaN, infinity, -infinity
    for (const int element : {0, 50, 64 * 128 - 1}) {
      const std::string error = error_after(
          [&](Tensors& t) { std::memcpy(&t[kDown].data[2 * element], &bad, sizeof(bad)); });
      EXPECT_THAT(error, AllOf(HasSubstr(kDownSite), HasSubstr("NaN or an infinity")));
    }
  }
}

TEST(FloatModel, WrongType) {
  const std::string error = error_after([](Tensors& t) {
    t[kDown].dtype = "I8";
    t[kDown].data.resize(t[kDown].data.size() / 2);
  });
  EXPECT_THAT(error, AllOf(HasSubstr(kDownSite), HasSubstr("I8")));
}

TEST(FloatModel, WeightsThatWouldBeLeftOut) {
  const std::string layer = "layers.2.input_layernorm.weight";
  EXPECT_THAT(error_after([&](Tensors& t) { t["model." + layer] = t["model.norm.weight"]; }),
              AllOf(HasSubstr(layer), HasSubstr("2 layers")));
  const std::string bias = "layers.0.mlp.down_proj.bias";
  EXPECT_THAT(error_after([&](Tensors& t) { t["model." + bias] = t["model.norm.weight"]; }),
              HasSubstr(bias));
}

TEST(FloatModel, BiasesAndAdaptersOfOtherPartsWouldBeLeftOutToo) {
  for (const char* name : {"lm_head.bias", "model.norm.bias", "model.embed_tokens.lora_embedding_A",
                           "model.layers.0.self_attn.q_proj.lora_A.default"}) {
    EXPECT_THAT(error_after([&](Tensors& t) { t[name] = t["model.norm.weight"]; }),
                HasSubstr("has no place"))
        << name;
  }
}

TEST(FloatModel, TiedHeadOfItsOwn) {
  const std::string error = error_after([](Tensors& t) {
    t["lm_head.weight"] = t["model.embed_tokens.weight"];
    t["lm_head.weight"].data[5] ^= std::byte{1};
  });
  EXPECT_THAT(error, AllOf(HasSubstr("differs from embed_tokens.weight"),
                           HasSubstr("tie_word_embeddings to false")));
}

TEST(FloatModel, OneTensorUnderTwoNames) {
  EXPECT_THAT(error_after([](Tensors& t) { t["norm.weight"] = t["model.norm.weight"]; }),
              HasSubstr("holds the tensor norm.weight twice"));
}

TEST(FloatModel, AdapterThatIsNotMerged) {
  const TestFolder folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(tiny_model_folder("tiny-llama") / name, folder.path() / name);
  }
  std::ofstream(folder.path() / "adapter_config.json") << "{}";
  EXPECT_THAT(error_of([&] { load_float_model(folder.path()); }), HasSubstr("merge it"));
}

TEST(FloatModel, HarmlessExtrasAreIgnored) {
  const std::string error = error_after([](Tensors& t) {
    t["model.layers.0.self_attn.rotary_emb.inv_freq"] = t["model.norm.weight"];
    t["model.layers.0.self_attn.masked_bias"] = t["model.norm.weight"];
    t["lm_head.weight"] = t["model.embed_tokens.weight"];
  });
  EXPECT_THAT(error, IsEmpty());
}

TEST(FloatModel, TruncatedFile) {
  const auto source = tiny_model_folder("tiny-llama");
  const TestFolder folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(source / name, folder.path() / name);
  }
  const auto file = folder.path() / "model.safetensors";
  std::filesystem::permissions(file, std::filesystem::perms::owner_all);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 10);
  EXPECT_THAT(error_of([&] { load_float_model(folder.path()); }), HasSubstr(file.string()));
}

TEST(FloatModel, MissingFolder) {
  EXPECT_THAT(error_of([] { load_float_model("/nowhere/at/all"); }), HasSubstr("/nowhere/at/all"));
}

}  // namespace
}  // namespace qnpu
