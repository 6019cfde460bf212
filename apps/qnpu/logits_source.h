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
  int context = 0;         // tokens that a sequence may have
  bool simulated = false;  // an artifact, but not by its integers

  // Logits [count, vocab] for the successors of window[begin .. begin + count), count <=
  // kLogitsRows. begin = 0 starts the window with this index; otherwise a call goes on where the
  // one before ended. Valid until the next call.
  std::function<std::span<const float>(int index, std::span<const int32_t> window, int begin,
                                       int count)>
      rows;

  // For sequences that begin alike: of `tokens` the first `keep` are those of the call before and
  // are not computed again; 0 starts anew. Logits for the successors of tokens[keep ..), at most
  // kLogitsRows of them (`all_rows`), or of the last token alone. Valid until the next call. Empty
  // if the logits are stored ones.
  std::function<std::span<const float>(std::span<const int32_t> tokens, int keep, bool all_rows)>
      resume;
};

// For sequences of up to `context` tokens behind the artifact's prefix; of fewer, if it has fewer
// positions.
LogitsSource artifact_source(std::shared_ptr<const Artifact> artifact, int context, int threads);

}  // namespace qnpu
