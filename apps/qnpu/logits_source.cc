#include "apps/qnpu/logits_source.h"

#include <algorithm>
#include <vector>

#include "runtime/session.h"

namespace qnpu {
namespace {

SessionOptions session_options(const Artifact& artifact, int context, int threads) {
  SessionOptions options;
  options.context = std::min(context + artifact.graph.prefix_length(), artifact.positions);
  options.max_rows = kLogitsRows;
  options.threads = threads;
  return options;
}

struct IntegerRunner {
  IntegerRunner(std::shared_ptr<const Artifact> artifact, int context, int threads)
      : session(artifact, session_options(*artifact, context, threads)) {}

  std::span<const float> rows(std::span<const int32_t> window, int begin, int count) {
    if (begin == 0) session.reset();
    return to_float(session.run(window.subspan(begin, count), /*all_rows=*/true));
  }

  std::span<const float> resume(std::span<const int32_t> tokens, int keep, bool all_rows) {
    session.truncate(session.prefix_length() + keep);
    const auto added = tokens.subspan(keep);
    return to_float(all_rows ? session.run(added, /*all_rows=*/true) : session.prefill(added));
  }

  std::span<const float> to_float(std::span<const int16_t> integers) {
    const float scale = static_cast<float>(session.logits_scale());
    logits.resize(integers.size());
    for (size_t i = 0; i < integers.size(); ++i) logits[i] = scale * integers[i];
    return logits;
  }

  Session session;
  std::vector<float> logits;
};

}  // namespace

LogitsSource artifact_source(std::shared_ptr<const Artifact> artifact, int context, int threads) {
  const auto runner = std::make_shared<IntegerRunner>(artifact, context, threads);
  LogitsSource source;
  source.name = artifact->folder.string();
  source.vocab = artifact->graph.config.vocab_size;
  source.context = runner->session.context() - runner->session.prefix_length();
  source.rows = [runner](int, std::span<const int32_t> window, int begin, int count) {
    return runner->rows(window, begin, count);
  };
  source.resume = [runner](std::span<const int32_t> tokens, int keep, bool all_rows) {
    return runner->resume(tokens, keep, all_rows);
  };
  return source;
}

}  // namespace qnpu
