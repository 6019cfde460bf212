// Which weights get 8 bits rather than 4, and which inputs of down_proj 16 rather than 8, within a
// budget (model/budget.h), by how much each one's narrow width is seen to cost.
//
// Sites are decided in groups: the weights of all linears that read one input (q, k, v; o; gate,
// up; down of each layer; the head), and the input of each down_proj with what must be as wide. A
// group's divergence is measured by itself:
//
//   KL(float model || float model with this group rounded to its narrow width),  nats per token,
//
// weights to the nearest integer, activations to the ranges that calibration would choose. Nothing
// before the group's layer changes, so each measurement begins there. At the larger width the
// divergence is a few hundredths to thousandths of that (a square of the steps' ratio, 18 or 256)
// and taken for 0; those of several groups are taken to add up, as independent errors do.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"
#include "quant/learn/workers.h"

namespace qnpu {

struct WidthGroup {
  std::string name = {};  // of the input without ".in"; or of down_proj's input itself
  int layer = -1;         // -1: the head
  std::vector<std::string> sites = {};  // that get a rule if the group is widened
  int wide_bits = 8;                    // 8 for weights, else 16; the narrow width is half of it
  int64_t bytes = 0;                    // that the larger width adds to the artifact
  double divergence = 0.0;              // of the narrow width
  bool wide = false;                    // chosen
};

struct WidthChoice {
  std::vector<WidthGroup> groups;
  int64_t smallest_bytes = 0;  // of model.safetensors, all groups narrow
  int64_t bytes = 0;           // as chosen
};

// Bytes of model.safetensors if nothing is widened. Error: more than the recipe's budget allows. A
// graph whose channels will yet be split gives a lower bound.
int64_t smallest_bytes(const Recipe& recipe, const Graph& graph, int positions);

// Groups of the weights that are 4-bit in `graph` (those in blocks aside), and of the 8-bit inputs
// of down_proj if any may be widened; with bytes, not yet measured.
std::vector<WidthGroup> width_groups(const Recipe& recipe, const Graph& graph);

// Fills the divergences. The windows have one length. Memory: their logits, and the residual stream
// at each layer. Workers share the groups.
void measure_divergences(std::vector<WidthGroup>& groups, const FloatModel& model,
                         const Recipe& recipe, const Graph& graph,
                         const std::vector<Window>& windows, const WindowProgress& progress,
                         const Workers& workers = {});

// Widens the groups with the largest divergence per byte first while they add at most `bytes` in
// all, and at most `inputs` of them are inputs. A large group that comes to stand outside is tried
// in first place too, so that many small ones do not keep it out.
void choose_groups(std::vector<WidthGroup>& groups, int64_t bytes, int inputs);

// All of it: appends the rules of the widened sites to the recipe, and makes its graph. `graph` is
// that of the model as it will be rounded, prefix included.
WidthChoice choose_widths(const FloatModel& model, Recipe& recipe, Graph& graph,
                          const std::vector<Window>& windows, int positions,
                          const WindowProgress& progress, const Workers& workers = {});

// Lines for people: by kind of group, what was widened in which layers, and what it saves.
std::string width_table(const WidthChoice& choice, const std::string& budget);

// {"smallest_bytes", "bytes", "groups": [{"name", "bits", "divergence", "bytes"}]}
nlohmann::json to_json(const WidthChoice& choice);

}  // namespace qnpu
