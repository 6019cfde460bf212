#include "apps/qnpu/stored_logits.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/qnpu/half.h"
#include "base/status.h"
#include "eval/metrics.h"
#include "io/safetensors.h"

namespace qnpu {
namespace {

constexpr const char* kFormat = "quantnpu logits";
constexpr const char* kVersion = "1";

std::string header_text(const Windows& windows, int vocab) {
  const int64_t tokens_end = static_cast<int64_t>(windows.tokens.size() * sizeof(int32_t));
  const int64_t rows = int64_t{windows.count} * (windows.length - 1);
  const int64_t logits_end = tokens_end + rows * vocab * static_cast<int64_t>(sizeof(uint16_t));
  const nlohmann::ordered_json header = {
      {"__metadata__",
       {{"format", kFormat}, {"version", kVersion}, {"text_hash", windows.text_hash}}},
      {"tokens",
       {{"dtype", "I32"},
        {"shape", {windows.count, windows.length}},
        {"data_offsets", {0, tokens_end}}}},
      {"logits",
       {{"dtype", "F16"}, {"shape", {rows, vocab}}, {"data_offsets", {tokens_end, logits_end}}}}};
  std::string text = header.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  return text;
}

struct Stored {
  TensorFile file;
  std::vector<float> rows;
};

void check(const TensorFile& file, const Windows& windows) {
  const auto& metadata = file.metadata();
  const auto found = metadata.find("format");
  if (found == metadata.end() || found->second != kFormat) {
    fail("{} holds no stored logits; make such a file with `qnpu eval --save-logits`", file.path());
  }
  if (metadata.count("version") == 0 || metadata.at("version") != kVersion) {
    fail("{} is of another version than {}; store the logits again", file.path(), kVersion);
  }
  if (metadata.count("text_hash") == 0 || metadata.at("text_hash") != windows.text_hash) {
    fail("{} was made from another text; store the logits of this one", file.path());
  }
  const TensorView& tokens = file.at("tokens");
  const TensorView& logits = file.at("logits");
  if (tokens.dtype != "I32" || tokens.shape.size() != 2 || logits.dtype != "F16" ||
      logits.shape.size() != 2 || logits.shape[0] != tokens.shape[0] * (tokens.shape[1] - 1)) {
    fail("{} is damaged: types or shapes of its tensors do not fit; store the logits again",
         file.path());
  }
  if (tokens.shape[1] != windows.length || tokens.shape[0] < windows.count) {
    fail(
        "{} holds {} windows of {} tokens, but {} of {} are asked for; give --length and --windows",
        file.path(), tokens.shape[0], tokens.shape[1], windows.count, windows.length);
  }
  if (!std::equal(windows.tokens.begin(), windows.tokens.end(), tokens.as<int32_t>().begin())) {
    fail("{} was made with another tokenizer; store the logits again", file.path());
  }
}

}  // namespace

LogitsWriter::LogitsWriter(const std::filesystem::path& path, const Windows& windows, int vocab)
    : file_(path), vocab_(vocab) {
  const std::string header = header_text(windows, vocab);
  const uint64_t size = header.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(std::as_bytes(std::span(header)));
  file_.write(std::as_bytes(std::span(windows.tokens)));
}

void LogitsWriter::write(std::span<const float> rows) {
  halves_.resize(rows.size());
  for (size_t begin = 0; begin < rows.size(); begin += vocab_) {
    const std::span<const float> row = rows.subspan(begin, vocab_);
    const float largest = row[top1(row)];
    std::transform(row.begin(), row.end(), halves_.begin() + begin,
                   [=](float logit) { return float_to_half(logit - largest); });
  }
  file_.write(std::as_bytes(std::span(halves_)));
}

LogitsSource stored_source(const std::filesystem::path& path, const Windows& windows) {
  const auto stored = std::make_shared<Stored>(Stored{TensorFile::open(path), {}});
  check(stored->file, windows);
  const TensorView& logits = stored->file.at("logits");
  LogitsSource source;
  source.name = path.string();
  source.vocab = static_cast<int>(logits.shape[1]);
  source.context = windows.length;
  source.rows = [stored, &logits, vocab = source.vocab](int index, std::span<const int32_t> window,
                                                        int begin, int count) {
    const size_t first = index * window.size() + begin;
    const auto halves = logits.as<uint16_t>().subspan(first * vocab, size_t{1} * count * vocab);
    stored->rows.resize(halves.size());
    std::transform(halves.begin(), halves.end(), stored->rows.begin(), half_to_float);
    return std::span<const float>(stored->rows);
  };
  return source;
}

}  // namespace qnpu
