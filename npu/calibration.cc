#include "npu/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "io/files.h"
#include "npu/least_squares.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What is fitted, by its name in npu/cost.json.
struct Named {
  const char* name;
  double CostParameters::*value;
};
constexpr std::array<Named, 6> kParameters = {{{"tera_products", &CostParameters::tera_products},
                                               {"speedup_8", &CostParameters::speedup_8},
                                               {"block_slowdown", &CostParameters::block_slowdown},
                                               {"memory_share", &CostParameters::memory_share},
                                               {"overhead_us", &CostParameters::overhead_us},
                                               {"watts", &CostParameters::watts}}};
constexpr CostParameters kStart = {4, 1.2, 1.2, 0.7, 2, 10};

// Reads the figures; a graph of one model and recipe is built once.
class Reader {
 public:
  explicit Reader(const fs::path& root) : root_(root), json_(read_json(file())) {}

  Calibration read() {
    try {
      Calibration c;
      for (const json& j : json_.at("rates")) c.times.push_back(rate(j));
      for (const json& j : json_.at("runs")) c.times.push_back(run(j));
      for (const json& j : json_.at("energies")) {
        c.energies.push_back({j.at("model"), j.at("seconds"), j.at("joules")});
      }
      return c;
    } catch (const json::exception& e) {
      fail("{}: {}", file().string(), e.what());
    }
  }

 private:
  fs::path file() const { return root_ / "npu/calibration.json"; }

  PublishedTime figure(const json& j) const {
    PublishedTime t;
    t.source = j.at("source");
    t.model = j.at("model");
    t.recipe = j.at("recipe");
    std::string name = j.at("target");
    std::transform(name.begin(), name.end(), name.begin(), ::tolower);
    t.target = load_target(root_ / "targets" / (name + ".json"));
    return t;
  }

  // Tokens per second of one graph.
  PublishedTime rate(const json& j) {
    PublishedTime t = figure(j);
    const int rows = j.at("rows");
    t.kind = j.value("own_kernels", false) ? "own kernels" : j.at("phase");
    t.group = t.model;
    t.seconds = rows / j.at("tokens_per_second").get<double>();
    t.calls = {{1, work(j, rows)}};
    return t;
  }

  // A prompt in pieces, then tokens one by one.
  PublishedTime run(const json& j) {
    PublishedTime t = figure(j);
    const int rows = j.at("rows"), prompt = j.at("prompt"), generated = j.at("generated");
    t.kind = "run";
    t.group = fmt::format("{}+{}", prompt, generated);
    t.seconds = j.at("seconds");
    t.calls = {{(prompt + rows - 1) / rows, work(j, rows)}, {generated, work(j, 1)}};
    return t;
  }

  std::vector<NodeWork> work(const json& j, int rows) {
    const std::string model = j.at("model"), recipe = j.at("recipe");
    auto [found, is_new] = graphs_.try_emplace({model, recipe});
    if (is_new) {
      found->second = build_graph(config_from_huggingface(json_.at("models").at(model), model),
                                  load_recipe(root_ / "recipes" / (recipe + ".json")));
    }
    return node_work(found->second, rows, j.at("context"), /*all_logits=*/false);
  }

  fs::path root_;
  json json_;
  std::map<std::pair<std::string, std::string>, Graph> graphs_;
};

double median(std::vector<double> values) {
  if (values.empty()) fail("npu/calibration.json: no figures are left to fit to");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What is fitted, as numbers without bounds.
std::vector<double> to_free(const CostParameters& p) {
  return {std::log(p.tera_products), std::log(p.speedup_8 - 1), std::log(p.block_slowdown - 1),
          std::log(p.memory_share / (1 - p.memory_share)), std::log(p.overhead_us)};
}

CostParameters from_free(const std::vector<double>& x) {
  CostParameters p;
  p.tera_products = std::exp(x[0]);
  p.speedup_8 = 1 + std::exp(x[1]);
  p.block_slowdown = 1 + std::exp(x[2]);
  p.memory_share = 1 / (1 + std::exp(-x[3]));
  p.overhead_us = std::exp(x[4]);
  return p;
}

double watts(const Calibration& calibration, const std::string& left_out) {
  std::vector<double> values;
  for (const PublishedEnergy& e : calibration.energies) {
    if (e.model != left_out) values.push_back(e.joules / e.seconds);
  }
  return median(std::move(values));
}

HeldBack summary(const std::vector<double>& ratios) {
  std::vector<double> logs;
  for (const double r : ratios) logs.push_back(std::abs(std::log(r)));
  return {std::exp(median(logs)), std::exp(*std::max_element(logs.begin(), logs.end())),
          static_cast<int>(logs.size())};
}

}  // namespace

Calibration load_calibration(const fs::path& root) { return Reader(root).read(); }

double ratio(const PublishedTime& time, const CostParameters& parameters) {
  double seconds = 0;
  for (const PublishedTime::Calls& calls : time.calls) {
    for (const NodeWork& w : calls.work) {
      seconds += calls.count * node_seconds(w, time.target, parameters);
    }
  }
  return seconds / time.seconds;
}

CostParameters fit(const Calibration& calibration, const std::string& left_out) {
  std::vector<const PublishedTime*> times;
  for (const PublishedTime& t : calibration.times) {
    if (t.fitted() && t.group != left_out) times.push_back(&t);
  }
  if (times.empty()) fail("npu/calibration.json: no times are left to fit to");
  const auto residuals = [&](const std::vector<double>& x) {
    const CostParameters p = from_free(x);
    std::vector<double> result;
    for (const PublishedTime* t : times) result.push_back(std::log(ratio(*t, p)));
    return result;
  };
  CostParameters best = from_free(least_squares(residuals, to_free(kStart)));
  best.watts = watts(calibration, left_out);
  return best;
}

std::map<std::string, HeldBack> held_back(const Calibration& calibration) {
  std::set<std::string> groups;
  for (const PublishedTime& t : calibration.times) groups.insert(t.group);
  std::map<std::string, std::vector<double>> ratios;
  for (const std::string& group : groups) {
    const CostParameters p = fit(calibration, group);
    for (const PublishedTime& t : calibration.times) {
      if (t.group == group) ratios[t.kind].push_back(ratio(t, p));
    }
    for (const PublishedEnergy& e : calibration.energies) {
      if (e.model == group) ratios["energy"].push_back(p.watts * e.seconds / e.joules);
    }
  }
  std::map<std::string, HeldBack> result;
  for (const auto& [kind, values] : ratios) result[kind] = summary(values);
  return result;
}

CostModel load_cost_model(const fs::path& path) {
  const json j = read_json(path);
  CostModel model;
  try {
    for (const Named& p : kParameters) {
      model.parameters.*p.value = j.at("parameters").at(p.name);
    }
    for (const auto& [kind, h] : j.at("held_back").items()) {
      model.held_back[kind] = {h.at("typical"), h.at("worst"), h.at("figures")};
    }
  } catch (const json::exception& e) {
    fail("{}: {}", path.string(), e.what());
  }
  return model;
}

json to_json(const CostModel& model) {
  const auto rounded = [](double x) { return std::stod(fmt::format("{:.4g}", x)); };
  json j = {{"made_by", "bench/npu_calibration --write, from npu/calibration.json"}};
  for (const Named& p : kParameters) j["parameters"][p.name] = rounded(model.parameters.*p.value);
  for (const auto& [kind, h] : model.held_back) {
    j["held_back"][kind] = {
        {"typical", rounded(h.typical)}, {"worst", rounded(h.worst)}, {"figures", h.figures}};
  }
  return j;
}

}  // namespace qnpu
