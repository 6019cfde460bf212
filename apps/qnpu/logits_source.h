// Where logits come from: an artifact's integer runtime, a float checkpoint, or a file of logits
// stored earlier. Evaluation sees only this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "model/artifact.h"

namespace qnpu {

constexpr int kLogitsRows = 128;  // rows asked for at once: never a whole window times vocabulary

struct LogitsSource {
  std::string name;
  int vocab = 0;

  // Logits [count, vocab] for the successors of window[begin .. begin + count), count <=
  // kLogitsRows. begin = 0 starts the window with this index; otherwise a call goes on where the
  // one before ended. Valid until the next call.
  std::function<std::span<const float>(int index, std::span<const int32_t> window, int begin,
                                       int count)>
      rows;
};

// Windows of at most `length` tokens. Error: the artifact has fewer positions beside its prefix.
LogitsSource artifact_source(std::shared_ptr<const Artifact> artifact, int length, int threads);

}  // namespace qnpu
