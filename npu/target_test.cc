#include "npu/target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"
#include "io/test_folder.h"
#include "model/graph.h"

namespace qnpu {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

namespace fs = std::filesystem;

std::vector<fs::path> target_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(QNPU_SOURCE_DIR "/targets")) {
    files.push_back(entry.path());
  }
  return files;
}

json sm8750() { return read_json(QNPU_SOURCE_DIR "/targets/sm8750.json"); }

std::string error_of_file(const json& content) {
  const TestFolder folder;
  write_json(folder.path() / "t.json", content);
  return error_of([&] { load_target(folder.path() / "t.json"); });
}

TEST(Target, EveryFileLoadsAndNamesItself) {
  ASSERT_GE(target_files().size(), 6u);
  for (const fs::path& file : target_files()) {
    const Target target = load_target(file);
    std::string name = target.name;
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(name, file.stem().string());
    for (int op = 0; op <= static_cast<int>(Op::kContext); ++op) {
      EXPECT_TRUE(target.operations.contains(op_name(static_cast<Op>(op)))) << file << " " << op;
    }
  }
}

TEST(Target, EveryNumberHasASource) {
  for (const fs::path& file : target_files()) {
    const json content = read_json(file);
    for (const auto& [key, value] : content.items()) {
      if (key == "sources" || value.is_string() || value.is_boolean()) continue;
      EXPECT_GT(content.at("sources").value(key, "").size(), 20u) << file << " " << key;
    }
  }
}

TEST(Target, WidthsAreReadInOrder) {
  const Target target = load_target(QNPU_SOURCE_DIR "/targets/sm8750.json");
  EXPECT_THAT(target.operations.at("scores"),
              testing::Contains(Widths{std::vector<int>{16, 8}, 16}));
  EXPECT_THAT(target.operations.at("embedding"), testing::Contains(Widths{{}, 16}));
  EXPECT_EQ(to_text(Widths{{16, 8}, 16}), "16x8>16");
  EXPECT_EQ(to_text(Widths{{}, 8}), ">8");
}

TEST(Target, AMissingKeyIsNamed) {
  for (const char* key : {"name", "soc_model", "htp_arch", "operations", "weight_bits",
                          "weight_blocks", "session_mb"}) {
    json content = sm8750();
    content.erase(key);
    EXPECT_THAT(error_of_file(content),
                AllOf(HasSubstr("t.json"), HasSubstr(key), HasSubstr("missing")));
  }
}

TEST(Target, WrongValuesAreNamed) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, json>>{{"session_mb", 0},
                                                 {"session_mb", "much"},
                                                 {"memory_gb_per_s", -1.5},
                                                 {"npu_speed", nullptr},
                                                 {"name", 7},
                                                 {"weight_bits", 8},
                                                 {"weight_bits", {4.5}},
                                                 {"operations", {1}}}) {
    json content = sm8750();
    content[key] = value;
    EXPECT_THAT(error_of_file(content), AllOf(HasSubstr("t.json"), HasSubstr(key))) << value;
  }
}

TEST(Target, WidthsThatAreNoneAreQuoted) {
  for (const char* text : {"", "8", "8>", "8x>8", "x8>8", "8>8>8", "8 > 8", "a>8", ">8x"}) {
    json content = sm8750();
    content["operations"]["linear"] = {text};
    EXPECT_THAT(error_of_file(content), AllOf(HasSubstr("operations.linear"), HasSubstr("16x8>16")))
        << text;
  }
}

}  // namespace
}  // namespace qnpu
