// The order in which texts are learned from: a shuffle of all sequences for each round through
// them, which depends on the seed alone.
#pragma once

#include <vector>

#include "quant/calibrate.h"
#include "quant/random.h"
#include "quant/tensor.h"

namespace qnpu {

class Sequences {
 public:
  // Windows are cut into pieces of `length` tokens. Error if none is that long.
  Sequences(const std::vector<Window>& windows, int length, uint64_t seed);

  torch::Tensor next(int64_t count);  // [count, length] int64
  void skip(int64_t count);           // as if they had been read

 private:
  size_t draw();

  Random random_;
  std::vector<std::vector<int64_t>> all_;
  std::vector<size_t> left_;  // of this round, the next one last
};

}  // namespace qnpu
