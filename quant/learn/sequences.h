// The order in which texts are learned from: they take turns, so that each has the same share
// however long it is; a text's sequences are shuffled for each round through it. Depends on the
// seed alone.
#pragma once

#include <vector>

#include "quant/calibrate.h"
#include "quant/random.h"
#include "quant/tensor.h"

namespace qnpu {

class Sequences {
 public:
  // Texts are cut into pieces of `length` tokens. Error if none is that long.
  Sequences(const std::vector<Window>& texts, int length, uint64_t seed);

  torch::Tensor next(int64_t count);  // [count, length] int64
  void skip(int64_t count);           // as if they had been read

 private:
  using Sequence = std::vector<int64_t>;
  struct Text {
    std::vector<Sequence> all;
    std::vector<size_t> left;  // of this round, the next one last
  };

  const Sequence& draw();

  SplitMix64 random_;
  std::vector<Text> texts_;
  size_t turn_ = 0;
};

}  // namespace qnpu
