// Fits the cost model to the published figures, and prints how far it is off.
//
//   npu_calibration [--write]     --write: the rates into npu/cost.json
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"
#include "npu/calibration.h"

namespace qnpu {
namespace {

void print_figures(const Calibration& calibration, const CostParameters& p) {
  fmt::print("{:<13} {:<7} {:<13} {:<22} {:<11} {:>10} {:>10} {:>6}\n", "source", "target", "model",
             "recipe", "kind", "published", "estimate", "ratio");
  for (const PublishedTime& t : calibration.times) {
    const double x = ratio(t, p);
    fmt::print("{:<13} {:<7} {:<13} {:<22} {:<11} {:>7.1f} ms {:>7.1f} ms {:>6.2f}\n", t.source,
               t.target.name, t.model, t.recipe, t.kind == "run" ? t.group : t.kind,
               1e3 * t.seconds, 1e3 * x * t.seconds, x);
  }
}

void run(bool write) {
  const std::filesystem::path root = QNPU_SOURCE_DIR;
  const Calibration calibration = load_calibration(root);
  const CostModel model = {fit(calibration, ""), held_back(calibration)};
  print_figures(calibration, model.parameters);
  fmt::print("\n{:<12} {:>8} {:>8} {:>8}\n", "held back", "figures", "typical", "worst");
  for (const auto& [kind, h] : model.held_back) {
    fmt::print("{:<12} {:>8} {:>7.2f}x {:>7.2f}x\n", kind, h.figures, h.typical, h.worst);
  }
  fmt::print("\n{}\n", to_json(model)["parameters"].dump(1));
  if (write) write_json(root / "npu/cost.json", to_json(model));
}

}  // namespace
}  // namespace qnpu

int main(int argc, char** argv) {
  try {
    qnpu::run(argc > 1 && std::strcmp(argv[1], "--write") == 0);
  } catch (const qnpu::Error& error) {
    fmt::print(stderr, "npu_calibration: {}\n", error.what());
    return 1;
  }
}
