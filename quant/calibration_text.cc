#include "quant/calibration_text.h"

#include <algorithm>

#include "io/files.h"
#include "model/tokens.h"

namespace qnpu {
namespace {

constexpr int kHeldOutShare = 16;   // a text's last 16th ...
constexpr int kHeldOutWindows = 4;  // ... at most so many windows
constexpr int kRangeTokens = 16384;

bool contains(const std::vector<int>& tokens, int token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

std::vector<int> tokens_of(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int> tokens = token_sequence(tokenizer, text);
  const std::vector<int> first = first_tokens(tokenizer);
  if (!tokens.empty()) {
    tokens.erase(std::remove_if(tokens.begin() + 1, tokens.end(),
                                [&](int token) { return contains(first, token); }),
                 tokens.end());
  }
  return tokens;
}

// Takes the last windows away from `tokens`; none of a text of fewer than two.
HeldOut hold_out(const std::string& name, std::vector<int>& tokens, int length) {
  HeldOut held{name, {}};
  const auto whole = static_cast<int>(tokens.size()) / length;
  if (whole < 2) return held;
  const int count = std::clamp(whole / kHeldOutShare, 1, kHeldOutWindows);
  const auto begin = tokens.end() - static_cast<int64_t>(count) * length;
  for (int i = 0; i < count; ++i) {
    held.windows.emplace_back(begin + int64_t{i} * length, begin + int64_t{i + 1} * length);
  }
  tokens.erase(begin, tokens.end());
  return held;
}

std::vector<Window> in_turns(const std::vector<std::vector<Window>>& of_text, size_t most) {
  std::vector<Window> windows;
  for (size_t turn = 0; windows.size() < most; ++turn) {
    const size_t before = windows.size();
    for (const auto& text : of_text) {
      if (turn < text.size() && windows.size() < most) windows.push_back(text[turn]);
    }
    if (windows.size() == before) break;
  }
  return windows;
}

}  // namespace

std::vector<NamedText> read_texts(const std::vector<std::filesystem::path>& paths) {
  std::vector<NamedText> texts;
  for (const auto& path : paths) texts.push_back({path.filename().string(), read_text(path)});
  return texts;
}

std::vector<int> first_tokens(const Tokenizer& tokenizer) {
  std::vector<int> first = tokenizer.encode("", /*add_special_tokens=*/true);
  const int end_of_text = tokenizer.token_to_id("<|endoftext|>");
  if (end_of_text >= 0) first.push_back(end_of_text);
  return first;
}

std::vector<int> sink_tokens(const Tokenizer& tokenizer) {
  std::vector<int> tokens = first_tokens(tokenizer);
  const auto add = [&](int token) {
    if (token >= 0 && !contains(tokens, token)) tokens.push_back(token);
  };
  for (const char* name : {"<|im_start|>", "<|begin_of_text|>", "<s>", "<bos>"}) {
    add(tokenizer.token_to_id(name));
  }
  const std::vector<int> line_end = tokenizer.encode("\n", /*add_special_tokens=*/false);
  if (!line_end.empty()) add(line_end.back());
  return tokens;
}

TextWindows make_windows(const Tokenizer& tokenizer, const std::vector<NamedText>& texts,
                         const TextOptions& o) {
  const auto count = static_cast<int>(texts.size());
  TextWindows windows;
  std::vector<std::vector<Window>> of_text;
  for (int i = 0; i < count; ++i) {
    std::vector<int> tokens = tokens_of(tokenizer, texts[i].text);
    if (o.learning) {
      HeldOut held = hold_out(texts[i].name, tokens, o.length);
      if (!held.windows.empty()) windows.held_out.push_back(std::move(held));
    }
    const int samples = std::max(1, (o.samples * (i + 1)) / count - (o.samples * i) / count);
    of_text.push_back(cut_windows(tokens, samples, o.length, o.seed));
    if (o.learning) windows.learning.push_back(std::move(tokens));
  }
  windows.calibration = in_turns(of_text, static_cast<size_t>(o.samples));
  return windows;
}

int range_window_count(int length) { return std::max(1, kRangeTokens / length); }

std::vector<Window> few(const std::vector<Window>& windows, size_t count, size_t length) {
  std::vector<Window> beginnings;
  for (size_t i = 0; i < std::min(count, windows.size()); ++i) {
    const auto end = static_cast<int64_t>(std::min(length, windows[i].size()));
    beginnings.emplace_back(windows[i].begin(), windows[i].begin() + end);
  }
  return beginnings;
}

std::vector<Window> last_few(const std::vector<Window>& windows, size_t count, size_t length) {
  const auto skipped = static_cast<int64_t>(windows.size() - std::min(count, windows.size()));
  return few({windows.begin() + skipped, windows.end()}, count, length);
}

}  // namespace qnpu
