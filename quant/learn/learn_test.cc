#include "quant/learn/learn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <thread>

#include "base/status.h"
#include "io/test_folder.h"
#include "quant/calibrate.h"
#include "quant/learn/workers_testing.h"
#include "quant/random.h"
#include "quant/ranges.h"
#include "quant/test_models.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using torch::Tensor;

struct Setting {
  FloatModel teacher;  // folded
  FloatModel student;
  Graph graph;
  std::vector<Window> windows;
  LearnOptions options;
};

Recipe recipe() {
  Recipe recipe;
  recipe.r1 = recipe.r2 = Rotation::kHadamard;
  Rule four_bits;
  four_bits.match = "*_proj.weight";
  four_bits.bitwidth = 4;
  recipe.rules = {four_bits};
  return recipe;
}

// With ranges of `calibrated`.
void prepare_run(Setting& s, const FloatModel& calibrated) {
  SplitMix64 random(1);
  for (int w = 0; w < 12; ++w) {
    Window window(16);
    for (int& token : window) token = static_cast<int>(random.below(s.teacher.config.vocab_size));
    s.windows.push_back(window);
  }
  assign_ranges(s.graph, calibrate(calibrated, s.graph, s.windows, {}));
  s.options.spec.steps = 12;
  s.options.spec.sequences = 4;
  s.options.spec.length = 16;
  s.options.spec.loss = Loss::kKl;
  s.options.spec.optimizer = Optimizer::kAdam;
  s.options.type = torch::kFloat32;
}

Setting setting(const std::string& name = "tiny-llama", bool rotations = false) {
  Setting s;
  s.teacher = load_float_model(tiny_model_folder(name));
  fold_norms(s.teacher);
  s.student = s.teacher;
  s.options.rotations =
      make_rotations(s.teacher.config, Rotation::kHadamard, Rotation::kHadamard, 0);
  FloatModel rotated = s.teacher;
  rotate(rotated, s.options.rotations);
  if (!rotations) s.student = rotated;
  s.graph = build_graph(s.teacher.config, recipe());
  prepare_run(s, rotated);
  s.options.spec.rotations = rotations;
  return s;
}

// Scales of channels, without rotations.
Setting channel_setting(const std::string& name = "tiny-llama") {
  Setting s;
  s.teacher = load_float_model(tiny_model_folder(name));
  fold_norms(s.teacher);
  s.student = s.teacher;
  Recipe unrotated = recipe();
  unrotated.r1 = unrotated.r2 = Rotation::kNone;
  s.graph = build_graph(s.teacher.config, unrotated);
  prepare_run(s, s.teacher);
  s.options.spec.channel_scales = true;
  return s;
}

LearnReport run(Setting& s) {
  std::vector<Window> text(1);  // of all windows
  for (const Window& window : s.windows)
    text[0].insert(text[0].end(), window.begin(), window.end());
  s.options.texts = &text;
  return learn(s.student, s.teacher, s.graph, s.options);
}

double mean(const std::vector<double>& values, size_t begin, size_t end) {
  double sum = 0.0;
  for (size_t i = begin; i < end; ++i) sum += values[i];
  return sum / static_cast<double>(end - begin);
}

std::vector<int8_t> integers(const Setting& s, const std::string& name) {
  const Tensor& w = s.student.weights.at(name);
  const Site& site = s.graph.site(s.graph.find_site(name));
  std::vector<int8_t> q(static_cast<size_t>(w.numel()));
  round_weights({w.data_ptr<float>(), w.size(0), w.size(1)}, site.qparams.scale.data(),
                weight_range(site.spec), q.data());
  return q;
}

constexpr const char* kWeight = "layers.0.mlp.down_proj.weight";
constexpr const char* kInput = "layers.0.mlp.down_proj.in";

TEST(Learn, WeightsAndScalesBringTheLossDown) {
  for (const bool outputs : {false, true}) {
    Setting s = setting();
    s.options.spec.weights = s.options.spec.weight_scales = s.options.spec.input_scales = true;
    s.options.spec.quantize_outputs = outputs;
    s.options.spec.lr_weights = 0.03;
    s.options.spec.steps = 30;
    s.options.held_out = {{"same", s.windows}};
    const float input = s.graph.site(s.graph.find_site(kInput)).qparams.scale[0];
    const LearnReport report = run(s);
    EXPECT_LT(report.held_out[0].after, 0.7 * report.held_out[0].before);
    EXPECT_LT(mean(report.losses, 24, 30), 0.8 * mean(report.losses, 0, 6));
    EXPECT_TRUE(report.accepted);
    EXPECT_NE(s.graph.site(s.graph.find_site(kInput)).qparams.scale[0], input);
    EXPECT_EQ(s.graph.site(s.graph.find_site(kWeight)).qparams.scale.size(),
              s.student.weights.at(kWeight).size(0));
  }
}

// 30 steps at a rate for scales, which bring the loss down.
void run_lower(Setting& s) {
  s.options.spec.lr_scales = 0.003;
  s.options.spec.steps = 30;
  s.options.held_out = {{"same", s.windows}};
  const LearnReport report = run(s);
  EXPECT_LT(report.held_out[0].after, report.held_out[0].before);
}

TEST(Learn, ScalesAloneLeaveTheWeights) {
  Setting s = setting();
  const Tensor before = s.student.weights.at(kWeight).clone();
  s.options.spec.weight_scales = s.options.spec.input_scales = true;
  run_lower(s);
  EXPECT_TRUE(torch::equal(s.student.weights.at(kWeight), before));
}

// "weights" at rate 0: the integers stay, and only what one step is worth is learned.
TEST(Learn, ScalesOfFixedIntegersBringTheLossDown) {
  Setting start = setting();
  start.options.spec.weights = start.options.spec.weight_scales = true;
  start.options.spec.lr_weights = start.options.spec.lr_scales = 0.0;
  start.options.spec.steps = 1;
  run(start);
  Setting s = setting();
  s.options.spec.weights = s.options.spec.weight_scales = true;
  s.options.spec.lr_weights = 0.0;
  run_lower(s);
  EXPECT_EQ(integers(s, kWeight), integers(start, kWeight));
  const int site = s.graph.find_site(kWeight);
  EXPECT_NE(s.graph.site(site).qparams.scale, start.graph.site(site).qparams.scale);
}

// Integers and scales of weights stay; what is frozen differs in the norms alone.
TEST(Learn, NormsAloneBringTheLossDown) {
  Setting s = setting("tiny-qwen3");
  const std::string norm = "layers.1.input_layernorm.weight";
  const Tensor weight = s.student.weights.at(kWeight).clone();
  const Tensor before = s.student.weights.at(norm).clone();
  s.options.spec.norms = true;
  run_lower(s);
  EXPECT_TRUE(torch::equal(s.student.weights.at(kWeight), weight));
  EXPECT_GT(max_difference(s.student.weights.at(norm), before), 1e-3);
}

TEST(Learn, ChannelScalesBringTheLossDown) {
  for (const Loss loss : {Loss::kKl, Loss::kHidden}) {
    Setting s = channel_setting();
    s.options.spec.loss = loss;
    run_lower(s);
  }
}

// With all that MobileQuant learns, and biases in one of the models.
TEST(Learn, ChannelScalesKeepTheFloatFunction) {
  for (const std::string& name : tiny_models()) {
    Setting s = channel_setting(name);
    LearnSpec& spec = s.options.spec;
    spec.weight_scales = spec.input_scales = true;
    spec.quantize_outputs = spec.output_scales = true;
    spec.loss = Loss::kHidden;
    spec.lr_scales = 0.01;
    run(s);
    const Graph graph = build_graph(s.teacher.config, Recipe{});
    const Tensor tokens = torch::arange(10);
    Simulator before(s.teacher, graph), after(s.student, graph);
    EXPECT_LT(relative_difference(all_logits(after, tokens), all_logits(before, tokens)), 1e-4);
    for (const char* changed : {kWeight, "layers.0.self_attn.o_proj.weight",
                                "layers.1.post_attention_layernorm.weight"}) {
      const Tensor& start = s.teacher.weights.at(changed);
      EXPECT_GT(relative_difference(s.student.weights.at(changed), start), 1e-3) << name;
    }
  }
}

// Scales of outputs move, and with that of v's its cache's, which shares it.
TEST(Learn, OutputScalesBringTheLossDown) {
  Setting s = setting();
  const int v = s.graph.find_site("layers.1.self_attn.v_proj.out");
  const int cache = s.graph.find_site("layers.1.self_attn.v_cache");
  const float start = s.graph.site(v).qparams.scale[0];
  const float input = s.graph.site(s.graph.find_site(kInput)).qparams.scale[0];
  s.options.spec.quantize_outputs = s.options.spec.output_scales = true;
  run_lower(s);
  EXPECT_GT(std::abs(s.graph.site(v).qparams.scale[0] / start - 1.0), 1e-4);
  EXPECT_EQ(s.graph.site(cache).qparams.scale, s.graph.site(v).qparams.scale);
  EXPECT_EQ(s.graph.site(s.graph.find_site(kInput)).qparams.scale[0], input);
}

// Of weights that are rotated, not of those that the student has before learning.
TEST(Learn, WeightScalesBeginWithRotatedWeights) {
  for (const char* name : {kWeight, "layers.1.self_attn.v_proj.weight"}) {
    Setting s = setting("tiny-llama", /*rotations=*/true);
    FloatModel rotated = s.teacher;
    rotate(rotated, s.options.rotations);
    s.options.spec.weight_scales = true;
    s.options.spec.lr_scales = s.options.spec.lr_rotations = 0.0;
    s.options.spec.steps = 1;
    run(s);
    const Site& site = s.graph.site(s.graph.find_site(name));
    const Tensor& w = rotated.weights.at(name);
    std::vector<float> scales(static_cast<size_t>(w.size(0)));
    weight_scales({w.data_ptr<float>(), w.size(0), w.size(1)}, site.spec, site.rotated,
                  scales.data());
    for (size_t i = 0; i < scales.size(); ++i) {
      EXPECT_NEAR(site.qparams.scale[i], scales[i], 1e-4 * scales[i]) << name;
    }
  }
}

TEST(Learn, PaperStageOneKeepsTheFloatFunction) {
  for (const std::string& name : tiny_models()) {
    Setting s = setting(name, /*rotations=*/true);
    LearnSpec& spec = s.options.spec;
    spec.weight_scales = spec.input_scales = true;
    spec.loss = Loss::kCrossEntropy;
    spec.optimizer = Optimizer::kSgd;
    spec.local_steps = 3;
    const LearnReport report = run(s);
    EXPECT_EQ(report.losses.size(), spec.steps);
    // Rotated weights compute what the float model computes.
    const Graph graph = build_graph(s.teacher.config, Recipe{});
    const Tensor tokens = torch::arange(10);
    Simulator before(s.teacher, graph), after(s.student, graph);
    EXPECT_LT(relative_difference(all_logits(after, tokens), all_logits(before, tokens)), 1e-4);
    EXPECT_GT(max_difference(s.student.weights.at(kWeight), s.teacher.weights.at(kWeight)), 1e-3);
  }
}

TEST(Learn, RotationsBringTheLossDown) {
  for (const bool dynamic : {false, true}) {
    Setting s = setting("tiny-llama", /*rotations=*/true);
    s.options.spec.dynamic_inputs = dynamic;
    s.options.spec.steps = 40;
    s.options.spec.sequences = 12;
    s.options.held_out = {{"same", s.windows}};
    const LearnReport report = run(s);
    EXPECT_LT(report.held_out[0].after, report.held_out[0].before);
  }
}

TEST(Learn, ResumedIsUninterruptedByteForByte) {
  for (const std::string what : {"weights", "rotations", "channels"}) {
    SCOPED_TRACE(what);
    const auto prepare = [&] {
      Setting s = what == "channels" ? channel_setting("tiny-qwen2")
                                     : setting("tiny-qwen2", what == "rotations");
      s.options.spec.weights = s.options.spec.norms = what == "weights";
      s.options.spec.weight_scales = s.options.spec.input_scales = true;
      s.options.spec.quantize_outputs = s.options.spec.output_scales = true;
      s.options.checkpoint_every = 5;
      return s;
    };
    Setting whole = prepare();
    const LearnReport wanted = run(whole);
    const TestFolder folder;
    struct Killed {};
    Setting killed = prepare();
    killed.options.state = folder.path();
    killed.options.progress = [](int step, int, double) {
      if (step == 8) throw Killed();
    };
    EXPECT_THROW(run(killed), Killed);
    Setting resumed = prepare();
    resumed.options.state = folder.path();
    int first = 0;
    resumed.options.progress = [&](int step, int, double) {
      if (first == 0) first = step;
    };
    EXPECT_EQ(run(resumed).losses, wanted.losses);
    EXPECT_EQ(first, 6);  // after the checkpoint of step 5
    for (const auto& [name, weight] : whole.student.weights) {
      EXPECT_TRUE(torch::equal(resumed.student.weights.at(name), weight)) << name;
    }
    for (size_t i = 0; i < whole.graph.sites.size(); ++i) {
      EXPECT_EQ(resumed.graph.sites[i].qparams.scale, whole.graph.sites[i].qparams.scale);
    }
  }
}

// The largest change of a scale relative to it, between two graphs.
double difference(const Graph& a, const Graph& b) {
  double most = 0.0;
  for (size_t i = 0; i < a.sites.size(); ++i) {
    const auto& x = a.sites[i].qparams.scale;
    const auto& y = b.sites[i].qparams.scale;
    EXPECT_EQ(x.size(), y.size()) << a.sites[i].name;
    for (size_t j = 0; j < x.size(); ++j) most = std::max(most, std::abs(x[j] / y[j] - 1.0));
  }
  return most;
}

// Three workers, of which the first has two of a step's four sequences. One step, since a rounding
// that goes the other way makes the next one another; and a step in proportion to the gradients,
// for Adam's first one knows their signs only.
void expect_workers_learn_the_same(const std::function<Setting()>& prepare) {
  Setting alone = prepare();
  const float start = alone.graph.site(alone.graph.find_site(kInput)).qparams.scale[0];
  const LearnReport wanted = run(alone);
  std::vector<Setting> settings;
  for (int i = 0; i < 3; ++i) settings.push_back(prepare());
  std::vector<LearnReport> reports(settings.size());
  run_workers(3, [&](const Workers& workers) {
    const auto i = static_cast<size_t>(workers.rank());
    settings[i].options.workers = workers;
    reports[i] = run(settings[i]);
  });
  const float end = alone.graph.site(alone.graph.find_site(kInput)).qparams.scale[0];
  EXPECT_GT(std::abs(end / start - 1.0), 1e-4);
  EXPECT_LT(difference(settings[0].graph, alone.graph), 1e-5);
  EXPECT_EQ(difference(settings[1].graph, settings[0].graph), 0.0);
  EXPECT_NEAR(reports[2].losses.back(), wanted.losses.back(), 1e-6 * wanted.losses.back());
  for (const auto& [name, weight] : alone.student.weights) {
    EXPECT_LT(relative_difference(settings[1].student.weights.at(name), weight), 1e-5) << name;
  }
}

Setting one_step(bool rotations) {
  Setting s = setting("tiny-llama", rotations);
  s.options.spec.weight_scales = s.options.spec.input_scales = true;
  s.options.spec.optimizer = Optimizer::kSgd;
  s.options.spec.lr_scales = 0.5;
  s.options.spec.local_steps = 1;
  s.options.spec.steps = 1;
  return s;
}

TEST(Learn, WorkersGiveTheScalesOfOneProcess) {
  expect_workers_learn_the_same([] { return one_step(false); });
}

TEST(Learn, WorkersGiveTheRotationsOfOneProcess) {
  expect_workers_learn_the_same([] { return one_step(true); });
}

TEST(Learn, WorkersGiveTheNormsAndOutputsOfOneProcess) {
  const auto prepare = [] {
    Setting s = one_step(false);
    s.options.spec.norms = true;
    s.options.spec.quantize_outputs = s.options.spec.output_scales = true;
    return s;
  };
  expect_workers_learn_the_same(prepare);
  Setting s = prepare();
  const std::string norm = "layers.1.input_layernorm.weight";
  const Tensor start = s.student.weights.at(norm).clone();
  const int output = s.graph.find_site("layers.1.mlp.up_proj.out");
  const float scale = s.graph.site(output).qparams.scale[0];
  run(s);
  EXPECT_GT(max_difference(s.student.weights.at(norm), start), 1e-4);
  EXPECT_GT(std::abs(s.graph.site(output).qparams.scale[0] / scale - 1.0), 5e-5);
}

TEST(Learn, WorkersGiveTheChannelScalesOfOneProcess) {
  const auto prepare = [] {
    Setting s = channel_setting("tiny-qwen2");
    LearnSpec& spec = s.options.spec;
    spec.weight_scales = spec.input_scales = true;
    spec.optimizer = Optimizer::kSgd;
    spec.lr_scales = 1.0;
    spec.local_steps = 1;
    spec.steps = 1;
    return s;
  };
  expect_workers_learn_the_same(prepare);
  Setting s = prepare();
  const std::string bias = "layers.0.self_attn.v_proj.bias";
  run(s);
  EXPECT_GT(relative_difference(s.student.weights.at(bias), s.teacher.weights.at(bias)), 1e-5);
}

// Weights too, over several steps: all workers stay the same, and learn as well.
TEST(Learn, WorkersStayTogether) {
  std::vector<Setting> settings;
  for (int i = 0; i < 3; ++i) {
    Setting s = setting();
    s.options.spec.weights = s.options.spec.weight_scales = s.options.spec.input_scales = true;
    s.options.spec.lr_weights = 0.03;
    s.options.spec.steps = 15;
    s.options.held_out = {{"same", s.windows}};
    settings.push_back(s);
  }
  const LearnReport wanted = run(settings[2]);
  std::vector<LearnReport> reports(2);
  run_workers(2, [&](const Workers& workers) {
    const auto i = static_cast<size_t>(workers.rank());
    settings[i].options.workers = workers;
    reports[i] = run(settings[i]);
  });
  EXPECT_LT(reports[0].held_out[0].after, 0.8 * reports[0].held_out[0].before);
  EXPECT_NEAR(reports[0].held_out[0].before, wanted.held_out[0].before, 1e-6);
  EXPECT_NEAR(reports[0].held_out[0].after, wanted.held_out[0].after, 0.02);
  EXPECT_EQ(reports[0].losses, reports[1].losses);
  EXPECT_EQ(difference(settings[0].graph, settings[1].graph), 0.0);
  for (const auto& [name, weight] : settings[0].student.weights) {
    EXPECT_TRUE(torch::equal(settings[1].student.weights.at(name), weight)) << name;
  }
}

TEST(Learn, MoreWorkersThanSequencesAreRefused) {
  run_workers(3, [](const Workers& workers) {
    Setting s = setting();
    s.options.spec.sequences = 2;
    s.options.workers = workers;
    EXPECT_THAT(error_of([&] { run(s); }), AllOf(HasSubstr("3 processes"), HasSubstr("(2)")));
  });
}

TEST(Learn, WorkersThatStartDifferentlyAreRefused) {
  run_workers(2, [](const Workers& workers) {
    Setting s = setting();
    s.options.spec.input_scales = true;
    s.windows[0][0] ^= workers.rank();
    s.options.workers = workers;
    EXPECT_THAT(error_of([&] { run(s); }), HasSubstr("different states"));
  });
}

TEST(Learn, StateOfAnotherRunIsRefused) {
  const TestFolder folder;
  const auto prepare = [&] {
    Setting s = setting();
    s.options.spec.input_scales = true;
    s.options.spec.steps = 3;
    s.options.checkpoint_every = 2;
    s.options.state = folder.path();
    return s;
  };
  Setting first = prepare();
  run(first);
  Setting other_rate = prepare();
  other_rate.options.spec.lr_scales = 0.02;
  EXPECT_THAT(error_of([&] { run(other_rate); }),
              AllOf(HasSubstr("another run"), HasSubstr("remove")));
  Setting other_text = prepare();
  other_text.windows[3][5] ^= 1;
  EXPECT_THAT(error_of([&] { run(other_text); }), HasSubstr("another run"));
  Setting same = prepare();
  EXPECT_EQ(error_of([&] { run(same); }), "");
}

TEST(Learn, DivergingSaysWhichRateToLower) {
  const TestFolder folder;
  Setting s = setting();
  s.options.section = "tune";
  s.options.spec.weights = true;
  s.options.spec.lr_weights = 30.0;
  s.options.spec.steps = 100;
  s.options.state = folder.path();
  s.options.checkpoint_every = 1;
  EXPECT_THAT(error_of([&] { run(s); }),
              AllOf(HasSubstr("diverged"), HasSubstr("'lr_weights' (30)"), HasSubstr("'tune'"),
                    HasSubstr(folder.path().string())));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "tune.safetensors"));
}

TEST(Learn, NanStops) {
  Setting s = setting();
  s.options.spec.input_scales = true;
  s.teacher.weights.at("lm_head.weight") = s.teacher.weights.at("lm_head.weight") * NAN;
  EXPECT_THAT(error_of([&] { run(s); }), AllOf(HasSubstr("nan"), HasSubstr("'lr_scales'")));
}

TEST(Learn, AResultWorseThanItsStartIsNotKept) {
  for (const bool weights : {false, true}) {
    Setting s = setting();
    s.options.spec.weight_scales = s.options.spec.input_scales = true;
    s.options.spec.weights = weights;
    s.options.spec.steps = 4;  // fewer than make a divergence
    s.options.spec.lr_scales = 1.5;
    Setting untouched = setting();
    untouched.options.spec.weight_scales = untouched.options.spec.input_scales = true;
    untouched.options.spec.steps = 1;
    untouched.options.spec.lr_scales = 0.0;
    s.options.held_out = {{"same", s.windows}};
    const LearnReport report = run(s);
    run(untouched);
    EXPECT_FALSE(report.accepted);
    EXPECT_GT(report.held_out[0].after, report.held_out[0].before);
    EXPECT_EQ(integers(s, kWeight), integers(untouched, kWeight));
    EXPECT_EQ(s.graph.site(s.graph.find_site(kInput)).qparams.scale,
              untouched.graph.site(untouched.graph.find_site(kInput)).qparams.scale);
  }
}

TEST(Learn, ShortTextIsRefused) {
  Setting s = setting();
  s.options.spec.input_scales = true;
  s.options.spec.length = 12 * 16 + 1;
  EXPECT_THAT(error_of([&] { run(s); }), AllOf(HasSubstr("193 tokens"), HasSubstr("'length'")));
}

TEST(Learn, WhatDoesNotGoTogetherIsRefused) {
  const auto error_with = [](auto change) {
    LearnSpec spec;
    change(spec);
    return error_of([&] { check_learning(spec, "learn"); });
  };
  const auto error = error_with([](LearnSpec& s) { s.rotations = s.weights = true; });
  EXPECT_THAT(error, HasSubstr("'rotations' and 'weights'"));
  EXPECT_THAT(error_with([](LearnSpec& s) { s.output_scales = true; }),
              AllOf(HasSubstr("'learn'"), HasSubstr("'quantize_outputs'")));
  EXPECT_THAT(error_with([](LearnSpec& s) { s.dynamic_inputs = s.input_scales = true; }),
              HasSubstr("'input_scales'"));
  EXPECT_THAT(error_with([](LearnSpec& s) {
                s.dynamic_inputs = true;
                s.local_steps = 1;
              }),
              HasSubstr("'local_steps'"));
  EXPECT_EQ(error_with([](LearnSpec& s) { s.dynamic_inputs = s.rotations = true; }), "");
  for (bool LearnSpec::*other : {&LearnSpec::rotations, &LearnSpec::weights, &LearnSpec::norms}) {
    EXPECT_THAT(error_with([&](LearnSpec& s) { s.channel_scales = s.*other = true; }),
                HasSubstr("'channel_scales'"));
  }
  EXPECT_EQ(error_with([](LearnSpec& s) { s.channel_scales = s.dynamic_inputs = true; }), "");
}

TEST(Learn, NothingToLearnIsRefused) {
  LearnSpec spec;
  spec.optimizer = Optimizer::kAdam;
  const auto error = [&] { return error_of([&] { check_learning(spec, "tune"); }); };
  EXPECT_THAT(error(), AllOf(HasSubstr("'tune'"), HasSubstr("nothing is to be learned")));
  spec.weights = true;
  EXPECT_EQ(error(), "");
  spec.lr_weights = 0.0;
  EXPECT_THAT(error(), HasSubstr("'lr_weights'"));
  spec.weight_scales = true;
  EXPECT_EQ(error(), "");
}

// Scales of ones, with which learning begins, are no scales of the linear.
TEST(Learn, ALinearOfZerosKeepsNoScale) {
  for (const bool weights : {false, true}) {
    Setting s = setting();
    s.options.spec.weight_scales = true;
    s.options.spec.weights = weights;
    s.options.spec.steps = 2;
    s.student.weights.at(kWeight) = torch::zeros_like(s.student.weights.at(kWeight));
    run(s);
    const auto& scale = s.graph.site(s.graph.find_site(kWeight)).qparams.scale;
    const auto size = static_cast<size_t>(s.student.weights.at(kWeight).size(0));
    EXPECT_EQ(scale, std::vector<float>(size, 0.0f));
  }
}

}  // namespace
}  // namespace qnpu
