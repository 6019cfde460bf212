// The one evaluation loop, whatever the logits come from.
#pragma once

#include "apps/qnpu/logits_source.h"
#include "apps/qnpu/progress.h"
#include "apps/qnpu/stored_logits.h"
#include "apps/qnpu/windows.h"
#include "eval/metrics.h"

namespace qnpu {

struct Evaluation {
  LikelihoodSum tested;
  LikelihoodSum reference;   // tokens = 0 without a reference
  DivergenceSum divergence;  // tokens = 0 without a reference
  double model_seconds = 0;  // in the tested model alone
};

// `reference` and `writer` (of the tested model's logits) may be null. Error if logits are not
// finite; throws Interrupted.
Evaluation evaluate(const Windows& windows, const LogitsSource& tested,
                    const LogitsSource* reference, LogitsWriter* writer, Progress& progress);

}  // namespace qnpu
