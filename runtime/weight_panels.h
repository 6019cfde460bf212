// A model's weights in the layout of the vector kernels (kernels/matmul/panels.h), made when a
// session is. They take the place of the artifact's own rows in memory: those pages are given back,
// and come from the file again should somebody read them.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/bind.h"

namespace qnpu {

class WeightPanels {
 public:
  WeightPanels() = default;
  // Gives the linears of `bound` their panels if its instruction set has kernels for them. On all
  // threads. Error if there is too little memory.
  explicit WeightPanels(BoundGraph& bound);

 private:
  struct Free {
    void operator()(uint8_t* pointer) const;
  };
  std::unique_ptr<uint8_t, Free> data_;
};

}  // namespace qnpu
