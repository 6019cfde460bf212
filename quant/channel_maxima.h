// The largest magnitude of each channel of some sites, in one pass over windows of text.
#pragma once

#include <map>
#include <vector>

#include "quant/calibrate.h"
#include "quant/tensor.h"

namespace qnpu {

// By site: max|x| of each channel, fp32 [cols] on the CPU. `sites` are activations before the
// head. Error naming the site if one holds a NaN or an infinity.
std::map<int, torch::Tensor> channel_maxima(const FloatModel& model, const Graph& graph,
                                            const std::vector<Window>& windows,
                                            const std::vector<int>& sites,
                                            const WindowProgress& progress);

}  // namespace qnpu
