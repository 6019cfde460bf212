#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/files.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kGolden = fs::path(QNPU_SOURCE_DIR) / "testdata/io/golden.safetensors";

// A file of this header text and so many data bytes.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + header + std::string(data_bytes, 'd');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

std::string object_of(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

class Damaged : public testing::Test {
 protected:
  std::string error_for(const std::string& content) {
    const fs::path path = folder_.path() / "x.safetensors";
    write_file(path, content);
    const std::string error = error_of([&] { TensorFile::open(path); });
    if (!error.empty()) {
      EXPECT_THAT(error, HasSubstr(path.string()));
    }
    return error;
  }
  TestFolder folder_;
};

TEST(Safetensors, ReadsWhatThePythonLibraryWrote) {
  const TensorFile file = TensorFile::open(kGolden);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), 6);
  const TensorView& f32 = file.at("layers.0.weight");
  EXPECT_EQ(f32.dtype, "F32");
  EXPECT_THAT(f32.shape, ElementsAre(2, 3));
  EXPECT_THAT(f32.as<float>(), ElementsAre(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 2.5f));
  EXPECT_THAT(file.at("bf16").as<uint16_t>(), ElementsAre(0x3F80, 0xC000, 0x0000));
  EXPECT_THAT(file.at("f16").as<uint16_t>(), ElementsAre(0x3C00, 0xC000));
  EXPECT_THAT(file.at("i8").as<int8_t>(), ElementsAre(-127, 0, 127));
  EXPECT_THAT(file.at("i64 scalar").as<int64_t>(), ElementsAre(int64_t{1} << 40));
  EXPECT_EQ(file.at("i64 scalar").shape.size(), 0);
  EXPECT_EQ(file.at("empty").bytes, 0);
  EXPECT_EQ(file.at("empty").elements(), 0);
}

TEST(Safetensors, ElementsAreReadInTheirOwnSize) {
  const TensorFile file = TensorFile::open(kGolden);
  EXPECT_THROW(file.at("i8").as<uint16_t>(), Error);
  EXPECT_THROW(file.at("bf16").as<float>(), Error);
}

TEST(Safetensors, SizeIsKnownBeforehand) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  const std::vector<std::byte> data(1000);
  const auto bytes = [&](size_t count) { return std::span(data).first(count); };
  const std::vector<TensorToWrite> tensors = {{"a", "U8", {3, 5}, bytes(15)},
                                              {"b", "F32", {16}, bytes(64)},
                                              {"long name", "I16", {7}, bytes(14)},
                                              {"c", "I8", {}, bytes(1)}};
  std::vector<TensorSpec> specs;
  for (const TensorToWrite& tensor : tensors) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    for (const std::map<std::string, std::string>& metadata :
         {std::map<std::string, std::string>{}, {{"format", "x"}}}) {
      write_safetensors(path, {tensors.begin(), tensors.begin() + std::ssize(specs)}, metadata);
      EXPECT_EQ(safetensors_bytes(specs, metadata), static_cast<int64_t>(fs::file_size(path)));
    }
  }
}

TEST(Safetensors, RoundTripAlignsEveryTensor) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  std::vector<int32_t> numbers(33);
  std::iota(numbers.begin(), numbers.end(), -5);
  const std::vector<int8_t> bytes = {1, -2, 3};
  write_safetensors(path,
                    {{"z", "I8", {3}, std::as_bytes(std::span(bytes))},
                     {"b", "I32", {3, 11}, std::as_bytes(std::span(numbers))},
                     {"a", "I8", {1, 3}, std::as_bytes(std::span(bytes))}},
                    {{"producer", "test \"quoted\""}});
  const TensorFile file = TensorFile::open(path);
  EXPECT_EQ(file.metadata().at("producer"), "test \"quoted\"");
  ASSERT_EQ(file.tensors().size(), 3);
  EXPECT_THAT(file.at("b").as<int32_t>(), testing::ElementsAreArray(numbers));
  EXPECT_THAT(file.at("a").as<int8_t>(), testing::ElementsAreArray(bytes));
  for (const auto& [name, view] : file.tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 64, 0) << name;
  }
  EXPECT_LT(file.at("z").data, file.at("b").data);
}

TEST(Safetensors, EmptyListIsAFileToo) {
  const TestFolder folder;
  write_safetensors(folder.path() / "a", {});
  EXPECT_TRUE(TensorFile::open(folder.path() / "a").tensors().empty());
}

TEST(Safetensors, WriterRefusesWhatReadersWould) {
  const TestFolder folder;
  const std::vector<float> data(4);
  const auto bytes = std::as_bytes(std::span(data));
  const fs::path path = folder.path() / "a";
  EXPECT_THAT(error_of([&] {
                write_safetensors(path, {{"t", "F32", {5}, bytes}});
              }),
              AllOf(HasSubstr("tensor t"), HasSubstr("16 bytes")));
  EXPECT_THAT(error_of([&] {
                write_safetensors(path, {{"t", "F32", {4}, bytes}, {"t", "F32", {4}, bytes}});
              }),
              HasSubstr("given twice"));
  EXPECT_FALSE(fs::exists(path));
}

TEST(Safetensors, MissingTensorNamesFileAndTensor) {
  const TensorFile file = TensorFile::open(kGolden);
  EXPECT_THAT(error_of([&] { file.at("nope"); }),
              AllOf(HasSubstr("golden.safetensors"), HasSubstr("no tensor nope")));
}

TEST(Safetensors, MisalignedTensorsAreReadable) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a";
  std::string header =
      object_of({entry("t", "F32", "[1]", "[1,5]"), entry("u", "U8", "[1]", "[0,1]")});
  std::string file = file_of(header, 5);
  const float value = 3.25f;
  std::memcpy(file.data() + file.size() - 4, &value, 4);
  write_file(path, file);
  const TensorFile tensors = TensorFile::open(path);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensors.at("t").data) % 4, 0);
  EXPECT_EQ(tensors.at("t").as<float>()[0], 3.25f);
}

TEST_F(Damaged, LengthAndJson) {
  EXPECT_THAT(error_for(""), HasSubstr("empty"));
  EXPECT_THAT(error_for("abc"), HasSubstr("too short"));
  EXPECT_THAT(error_for(std::string(8, '\xFF') + "{}"), HasSubstr("18446744073709551615 bytes"));
  EXPECT_THAT(error_for(file_of("{}", 0).substr(0, 9)), HasSubstr("cut short"));
  EXPECT_THAT(error_for(file_of("{\"a\":", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_for(file_of(R"({"a": 1e999})", 0)), HasSubstr("out of range"));
  EXPECT_THAT(error_for(file_of("{\"a\": " + std::string(200'000, '['), 0)),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(error_for(file_of("[1]", 0)), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_for(file_of(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("__metadata__ a"));
  EXPECT_EQ(error_for(file_of("{}", 0)), "");
}

TEST_F(Damaged, Entries) {
  const auto one = [&](const std::string& dtype, const std::string& shape,
                       const std::string& offsets, size_t bytes) {
    return error_for(file_of(object_of({entry("t", dtype, shape, offsets)}), bytes));
  };
  EXPECT_EQ(one("F32", "[2]", "[0,8]", 8), "");
  EXPECT_THAT(one("F32", "[2]", "[0,8]", 7), AllOf(HasSubstr("tensor t"), HasSubstr("cut short")));
  EXPECT_THAT(one("F32", "[2]", "[0,8]", 9), HasSubstr("1 bytes at its end"));
  EXPECT_THAT(one("F32", "[2]", "[8,0]", 8), HasSubstr("bytes 8 to 0"));
  EXPECT_THAT(one("F32", "[2]", "[0,-8]", 8), HasSubstr("two data_offsets"));
  EXPECT_THAT(one("F32", "[2]", "[0]", 8), HasSubstr("two data_offsets"));
  EXPECT_THAT(one("F32", "[3]", "[0,8]", 8), HasSubstr("[3] of F32"));
  EXPECT_THAT(one("F32", "[-2]", "[0,8]", 8), HasSubstr("needs dtype"));
  EXPECT_THAT(one("F32", "[1.5]", "[0,8]", 8), HasSubstr("needs dtype"));
  // 2^61 * 4 + 4 elements overflow to a small number if multiplied carelessly.
  EXPECT_THAT(one("F32", "[2305843009213693952,8]", "[0,0]", 0), HasSubstr("holds 0 bytes"));
  EXPECT_THAT(one("Q4", "[2]", "[0,8]", 8), HasSubstr("unknown type Q4"));
  EXPECT_THAT(error_for(file_of(R"({"t":7})", 0)), HasSubstr("needs dtype"));
}

TEST_F(Damaged, OverlapGapAndDuplicate) {
  const auto two = [&](const std::string& name, const std::string& offsets) {
    return error_for(file_of(
        object_of({entry("a", "U8", "[4]", "[0,4]"), entry(name, "U8", "[4]", offsets)}), 8));
  };
  EXPECT_EQ(two("b", "[4,8]"), "");
  EXPECT_THAT(two("b", "[3,7]"), HasSubstr("tensor b overlaps"));
  EXPECT_THAT(two("a", "[4,8]"), HasSubstr("tensor a is listed twice"));
  EXPECT_THAT(error_for(file_of(object_of({entry("a", "U8", "[4]", "[4,8]")}), 8)),
              HasSubstr("4 bytes before the tensor a"));
}

class Checkpoint : public testing::Test {
 protected:
  void shard(const std::string& file, const std::string& tensor) {
    write_safetensors(folder_.path() / file,
                      {{tensor, "F32", {4}, std::as_bytes(std::span(data_))}});
  }
  void index(const nlohmann::json& weight_map) {
    write_json(folder_.path() / "model.safetensors.index.json", {{"weight_map", weight_map}});
  }
  std::string error() {
    return error_of([&] { TensorFile::open_checkpoint(folder_.path()); });
  }
  TestFolder folder_;
  std::vector<float> data_ = {1, 2, 3, 4};
};

TEST_F(Checkpoint, SingleFileAndShards) {
  shard("1.safetensors", "a");
  shard("2.safetensors", "b");
  index({{"a", "1.safetensors"}, {"b", "2.safetensors"}});
  const TensorFile sharded = TensorFile::open_checkpoint(folder_.path());
  EXPECT_EQ(sharded.tensors().size(), 2);
  EXPECT_EQ(sharded.at("b").as<float>()[3], 4);
  shard("model.safetensors", "only");
  EXPECT_TRUE(TensorFile::open_checkpoint(folder_.path()).contains("only"));
}

TEST_F(Checkpoint, DamagedOnesAreClear) {
  EXPECT_THAT(error(), HasSubstr("neither model.safetensors nor"));
  index({{"a", "1.safetensors"}});
  EXPECT_THAT(error(), HasSubstr("shard 1.safetensors of its index is missing"));
  shard("1.safetensors", "z");
  EXPECT_THAT(error(), HasSubstr("tensor a is not in 1.safetensors"));
  shard("1.safetensors", "a");
  shard("2.safetensors", "a");
  index({{"a", "1.safetensors"}, {"b", "2.safetensors"}});
  EXPECT_THAT(error(), HasSubstr("also in another shard"));
  index({{"a", "../1.safetensors"}});
  EXPECT_THAT(error(), HasSubstr("no plain shard name"));
  index(nlohmann::json::object());
  EXPECT_THAT(error(), HasSubstr("weight_map is empty"));
}

TEST_F(Checkpoint, OtherFormatsAreNamed) {
  write_file(folder_.path() / "pytorch_model.bin", "x");
  EXPECT_THAT(error(), HasSubstr("save the model as safetensors"));
  EXPECT_THAT(error_of([&] { TensorFile::open_checkpoint(folder_.path() / "none"); }),
              HasSubstr("not a readable folder"));
}

}  // namespace
}  // namespace qnpu
