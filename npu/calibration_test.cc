#include "npu/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/files.h"
#include "io/test_folder.h"
#include "npu/test_graphs.h"

namespace qnpu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kRoot = QNPU_SOURCE_DIR;

const Calibration& calibration() {
  static const Calibration loaded = load_calibration(kRoot);
  return loaded;
}

// npu/cost.json is what the figures give, and says truly how far it is off.
TEST(Calibration, TheRatesInUseAreThoseOfTheFigures) {
  const CostModel made = {fit(calibration(), ""), held_back(calibration())};
  const json now = to_json(made).flatten(), kept = read_json(kRoot / "npu/cost.json").flatten();
  ASSERT_EQ(now.size(), kept.size());
  for (const auto& [key, value] : kept.items()) {
    ASSERT_TRUE(now.contains(key)) << key;
    if (value.is_string()) {
      EXPECT_EQ(now[key], value);
    } else {  // other compilers' logarithms may differ in the last digit kept
      EXPECT_NEAR(now[key], value, 2e-3 * value.get<double>()) << key;
    }
  }
}

TEST(Calibration, EveryFigureNamesItsSource) {
  const json j = read_json(kRoot / "npu/calibration.json");
  for (const char* list : {"rates", "runs", "energies"}) {
    for (const json& figure : j.at(list)) {
      EXPECT_GT(j.at("sources").value(figure.at("source").get<std::string>(), "").size(), 20u);
      EXPECT_TRUE(j.at("models").contains(figure.at("model"))) << figure;
    }
  }
}

// Times made by known rates must give these rates back.
TEST(Calibration, RecoversKnownRates) {
  const CostParameters truth = {.tera_products = 2.5,
                                .speedup_8 = 1.7,
                                .block_slowdown = 1.4,
                                .memory_share = 0.5,
                                .overhead_us = 3,
                                .watts = 4};
  Calibration made = calibration();
  for (PublishedTime& t : made.times) t.seconds *= ratio(t, truth);
  for (PublishedEnergy& e : made.energies) e.joules = truth.watts * e.seconds;
  const CostParameters found = fit(made, "");
  EXPECT_NEAR(found.tera_products, truth.tera_products, 0.02 * truth.tera_products);
  EXPECT_NEAR(found.speedup_8, truth.speedup_8, 0.02 * truth.speedup_8);
  EXPECT_NEAR(found.block_slowdown, truth.block_slowdown, 0.02 * truth.block_slowdown);
  EXPECT_NEAR(found.memory_share, truth.memory_share, 0.02 * truth.memory_share);
  EXPECT_NEAR(found.overhead_us, truth.overhead_us, 0.05 * truth.overhead_us);
  EXPECT_DOUBLE_EQ(found.watts, truth.watts);
}

TEST(Calibration, WhatIsLeftOutDoesNotInfluenceTheFit) {
  Calibration changed = calibration();
  for (PublishedTime& t : changed.times) {
    if (t.group == "Qwen3-1.7B" || !t.fitted()) t.seconds *= 10;
  }
  EXPECT_EQ(fit(changed, "Qwen3-1.7B").tera_products,
            fit(calibration(), "Qwen3-1.7B").tera_products);
  EXPECT_NE(fit(changed, "").tera_products, fit(calibration(), "").tera_products);
}

// Weights of 4 bits in 3.2 billion parameters, some 1.9 GB with a head of 8 bits: what Table 12
// decodes in 35.7 ms. The bytes alone, at the peak of the memory, take 22 ms.
TEST(Calibration, AFigureByHand) {
  int found = 0;
  for (const PublishedTime& t : calibration().times) {
    if (t.source != "table 12" || t.model != "Llama-3.2-3B" || t.kind != "decode") continue;
    double bytes = 0;
    for (const NodeWork& w : t.calls.at(0).work) bytes += w.memory_bytes;
    EXPECT_NEAR(bytes, 1.9e9, 0.1e9);
    EXPECT_NEAR(t.seconds, 0.0358, 0.0002);
    ++found;
  }
  EXPECT_GE(found, 1);
}

TEST(Calibration, ADamagedCostModelIsNamed) {
  const TestFolder folder;
  write_json(folder.path() / "cost.json", {{"parameters", {{"watts", 1}}}});
  EXPECT_THAT(error_of([&] { load_cost_model(folder.path() / "cost.json"); }),
              HasSubstr("cost.json"));
}

}  // namespace
}  // namespace qnpu
