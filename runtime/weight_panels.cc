#include "runtime/weight_panels.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/status.h"
#include "io/safetensors.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

size_t bytes_of(const LinearWeights& w) { return panels_bytes(w.n, w.k, w.bits); }

}  // namespace

void WeightPanels::Free::operator()(uint8_t* pointer) const { std::free(pointer); }

WeightPanels::WeightPanels(BoundGraph& bound) {
  if (!takes_panels(bound.isa)) return;
  size_t bytes = 0;
  for (const BoundNode& node : bound.nodes) {
    if (node.op == Op::kLinear) bytes += bytes_of(node.linear);
  }
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, whole)));
  if (!data_) fail("no memory for {} MB of weights: choose a smaller model", bytes >> 20);
  // Large pages: decoding reads all of it for every token, and small ones cost a fifth of that.
  ::madvise(data_.get(), whole, MADV_HUGEPAGE);
  uint8_t* panels = data_.get();
  for (BoundNode& node : bound.nodes) {
    if (node.op != Op::kLinear) continue;
    LinearWeights& w = node.linear;
    make_panels(w.weight, w.n, w.k, w.bits, panels, bound.isa);
    release_mapped_pages(w.weight, static_cast<size_t>(w.n) * static_cast<size_t>(w.k) *
                                       static_cast<size_t>(w.bits) / 8);
    w.panels = panels;
    panels += bytes_of(w);
  }
}

}  // namespace qnpu
