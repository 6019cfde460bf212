#include "apps/qnpu/logits_source.h"

#include <vector>

#include "base/status.h"
#include "runtime/session.h"

namespace qnpu {

LogitsSource artifact_source(std::shared_ptr<const Artifact> artifact, int length, int threads) {
  const int prefix = artifact->graph.prefix_length();
  const int room = artifact->positions - prefix;
  if (length > room) {
    fail("{} has {} positions for text, fewer than one window of {}; give --length {} or less",
         artifact->folder.string(), room, length, room);
  }
  SessionOptions options;
  options.context = length + prefix;
  options.max_rows = kLogitsRows;
  options.threads = threads;
  const auto session = std::make_shared<Session>(artifact, options);
  const auto logits = std::make_shared<std::vector<float>>();
  LogitsSource source;
  source.name = artifact->folder.string();
  source.vocab = artifact->graph.config.vocab_size;
  source.rows = [session, logits](int, std::span<const int32_t> window, int begin, int count) {
    if (begin == 0) session->reset();
    const std::span<const int16_t> integers =
        session->run(window.subspan(begin, count), /*all_rows=*/true);
    const float scale = static_cast<float>(session->logits_scale());
    logits->resize(integers.size());
    for (size_t i = 0; i < integers.size(); ++i) (*logits)[i] = scale * integers[i];
    return std::span<const float>(*logits);
  };
  return source;
}

}  // namespace qnpu
