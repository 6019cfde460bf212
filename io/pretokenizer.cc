#include "io/pretokenizer.h"

#include <map>

#include "base/status.h"
#include "io/pattern.h"
#include "io/split_behavior.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

// Splits by an expression or string.
class Split : public PreTokenizer {
 public:
  explicit Split(const JsonPart& part)
      : pattern_(part.at("pattern")),
        behavior_(split_behavior(part)),
        invert_(part.flag("invert", false)) {}

  void split(const TextPiece& piece, TextPieces& out) const override {
    std::vector<Range> matches;
    pattern_.find_all(piece.text, matches);
    split_by(matches, behavior_, invert_, piece, out);
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Cuts out numbers, each digit alone or a run at once.
class Digits : public PreTokenizer {
 public:
  explicit Digits(const JsonPart& part)
      : behavior_(part.flag("individual_digits", false) ? SplitBehavior::kIsolated
                                                        : SplitBehavior::kContiguous) {}

  void split(const TextPiece& piece, TextPieces& out) const override {
    std::vector<Range> matches;
    for (size_t i = 0; i < piece.text.size();) {
      const auto byte = static_cast<uint8_t>(piece.text[i]);
      const Utf8Char c = byte < 0x80 ? Utf8Char{byte, 1, true} : utf8_at(piece.text, i);
      const bool digit = byte < 0x80 ? byte >= '0' && byte <= '9' : is_number(c.code);
      if (digit) matches.push_back({i, i + c.length});
      i += c.length;
    }
    split_by(matches, behavior_, /*invert=*/false, piece, out);
  }

 private:
  SplitBehavior behavior_;
};

// GPT-2's own splitting. The step from bytes to their alphabet is the model's.
class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const JsonPart& part)
      : add_prefix_space_(part.flag("add_prefix_space", true)),
        use_regex_(part.flag("use_regex", true)) {}

  void split(const TextPiece& piece, TextPieces& out) const override {
    TextPiece text = piece;
    if (add_prefix_space_ && !piece.text.starts_with(' ')) {
      text.text = out.storage.emplace_back(" ").append(piece.text);
    }
    if (!use_regex_) return out.add(text.text, text.at_start);
    std::vector<Range> matches;
    expression().find_all(text.text, matches);
    split_by(matches, SplitBehavior::kIsolated, /*invert=*/false, text, out);
  }

 private:
  // English contractions, then runs of letters, of numbers, of others, each with one space before
  // it; the last space of a run of white space belongs to the next word.
  static const Regex& expression() {
    static const Regex regex(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
    return regex;
  }

  bool add_prefix_space_;
  bool use_regex_;
};

// SentencePiece's: a space becomes a visible character, which begins a word.
class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const JsonPart& part)
      : mark_(part.text("replacement", "\u2581")), split_(part.flag("split", true)) {
    const char* otherwise = part.flag("add_prefix_space", true) ? "always" : "never";
    scheme_ = part.text("prepend_scheme", otherwise);
    if (scheme_ != "always" && scheme_ != "never" && scheme_ != "first") {
      part.fail_here(fmt::format("the prepend_scheme {} is unknown", scheme_));
    }
  }

  void split(const TextPiece& piece, TextPieces& out) const override {
    std::string& text = out.storage.emplace_back();
    for (const char c : piece.text) c == ' ' ? text += mark_ : text += c;
    const bool prepends = scheme_ == "always" || (scheme_ == "first" && piece.at_start);
    if (prepends && !text.starts_with(mark_)) text.insert(0, mark_);
    std::vector<Range> marks;
    for (size_t at = text.find(mark_); split_ && at != text.npos; at = text.find(mark_, at)) {
      marks.push_back({at, at + mark_.size()});
      at += mark_.size();
    }
    split_by(marks, SplitBehavior::kMergedWithNext, false, {text, piece.at_start}, out);
  }

 private:
  std::string mark_;
  std::string scheme_;
  bool split_;
};

std::unique_ptr<PreTokenizer> make_step(const JsonPart& part) {
  const std::string kind = part.kind();
  if (kind == "Split") return std::make_unique<Split>(part);
  if (kind == "Digits") return std::make_unique<Digits>(part);
  if (kind == "ByteLevel") return std::make_unique<ByteLevel>(part);
  if (kind == "Metaspace") return std::make_unique<Metaspace>(part);
  part.fail_unknown_kind("Sequence, Split, Digits, ByteLevel, Metaspace");
}

void add_steps(const JsonPart& part, PreTokenizers& result) {
  if (part.kind() == "Sequence") {
    for (const JsonPart& step : part.list("pretokenizers")) add_steps(step, result);
    return;
  }
  // A later step would have to split characters of the byte alphabet; no known file asks for it.
  if (result.byte_level) part.fail_here("a step after ByteLevel is not supported");
  result.byte_level = part.kind() == "ByteLevel";
  result.steps.push_back(make_step(part));
}

}  // namespace

PreTokenizers make_pretokenizers(const JsonPart& part) {
  PreTokenizers result;
  add_steps(part, result);
  return result;
}

void PreTokenizers::split(TextPiece piece, TextPieces& out) const {
  std::vector<TextPiece> now = {piece};
  for (const auto& step : steps) {
    for (const TextPiece& part : now) step->split(part, out);
    now = std::exchange(out.list, {});
  }
  out.list = std::move(now);
}

}  // namespace qnpu
