#include "runtime/weight_panels.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "base/status.h"
#include "io/safetensors.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

size_t bytes_of(const LinearWeights& w) { return panels_bytes(w.n, w.k, w.bits); }

int64_t row_bytes(const LinearWeights& w) { return int64_t{w.k} * w.bits / 8; }

void release_rows(const LinearWeights& w, int first, int count) {
  release_mapped_pages(w.weight + first * row_bytes(w), static_cast<size_t>(count * row_bytes(w)));
}

// Some rows at a time, so that at most those are in memory in both layouts.
void fill(const LinearWeights& w, uint8_t* panels, Isa isa) {
  constexpr int kRows = 64 * kPanelRows;
  for (int n = 0; n < w.n; n += kRows) {
    const int count = std::min(kRows, w.n - n);
    make_panels(w.weight + n * row_bytes(w), count, w.k, w.bits,
                panels + n / kPanelRows * panel_bytes(w.k, w.bits), isa);
    release_rows(w, n, count);
  }
}

}  // namespace

void WeightPanels::Free::operator()(uint8_t* pointer) const { std::free(pointer); }

WeightPanels::WeightPanels(const BoundGraph& bound) {
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
  for (const BoundNode& node : bound.nodes) {
    if (node.op != Op::kLinear) continue;
    fill(node.linear, panels, bound.isa);
    panels += bytes_of(node.linear);
  }
}

bool WeightPanels::give(BoundGraph& bound) const {
  if (takes_panels(bound.isa) != (data_ != nullptr)) return false;
  const uint8_t* panels = data_.get();
  for (BoundNode& node : bound.nodes) {
    if (panels == nullptr || node.op != Op::kLinear) continue;
    node.linear.panels = panels;
    panels += bytes_of(node.linear);
  }
  return true;
}

}  // namespace qnpu
