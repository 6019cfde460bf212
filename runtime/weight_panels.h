// A model's weights in the layout of the vector kernels (kernels/matmul/panels.h), made when its
// first session is. They take the place of the artifact's own rows in memory: those pages are given
// back, and come from the file again should somebody read them.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/bind.h"

namespace qnpu {

class WeightPanels {
 public:
  // Of the linears of `bound`, if its instruction set has kernels for them; else none. On all
  // threads. Error if there is too little memory.
  explicit WeightPanels(const BoundGraph& bound);

  // Gives the linears of `bound`, a graph of the same artifact, their panels. Whether it did: not
  // if that graph's instruction set wants rows and these are panels, or the other way round.
  bool give(BoundGraph& bound) const;

 private:
  struct Free {
    void operator()(uint8_t* pointer) const;
  };
  std::unique_ptr<uint8_t, Free> data_;
};

}  // namespace qnpu
