// Integer laws that follow from the scales of a graph's sites. Freezing stores them; the runtime
// computes with what is stored, and an NPU's compiler makes its own from the scales, so whoever
// exports an artifact asks first whether they are the same.
#pragma once

#include "model/artifact.h"

namespace qnpu {

// The mask adds 0 or -100 in steps of 100/65535; visible positions add 0.
inline constexpr double kMaskScale = 100.0 / 65535;

// Scale of a site that has one scale. Error naming it if it has none yet.
double scale_of(const Graph& graph, int site);

// Of any node but a linear, whose laws are those of its channels; monostate where the operation
// needs none. An attention product's multiplier has 12 significant bits. Error if the scales do not
// fit together.
Law law_from_scales(const Graph& graph, const Node& node);

// Error naming the first site whose stored law, multipliers or table do not follow from the scales.
void check_laws(const Artifact& artifact);

}  // namespace qnpu
