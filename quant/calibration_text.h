// Texts as windows of tokens: to calibrate with, to learn from, and held back from both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/tokenizer.h"
#include "quant/calibrate.h"

namespace qnpu {

// Windows that are never learned from; a result must not be worse on any of them than its start.
struct HeldOut {
  std::string name;
  std::vector<Window> windows;
};

struct NamedText {
  std::string name;
  std::string text;
};

// By file name. Error: as read_text.
std::vector<NamedText> read_texts(const std::vector<std::filesystem::path>& paths);

struct TextOptions {
  int samples = 16;   // windows to calibrate with, at most; shared evenly by the texts
  int length = 2048;  // tokens of each
  uint64_t seed = 0;
  bool learning = false;  // fill learning and held_out too
};

struct TextWindows {
  std::vector<Window> calibration;  // the texts in turns, so that the first ones are a mixture too
  std::vector<Window> learning;     // each text whole, but for what is held out
  std::vector<HeldOut> held_out;    // the end of each text: 1/16 of it, at most 4 windows
};

// Tokens that a text begins with, and that stand between the documents of a collection.
std::vector<int> first_tokens(const Tokenizer& tokenizer);

// Tokens that may serve as a prefix: those, what chats and documents begin with, and a line's end.
std::vector<int> sink_tokens(const Tokenizer& tokenizer);

// Separators inside the texts are left out: they are attention sinks, with activations a hundred
// times those of text, and no text that a model is asked to read has them in its middle. Error: a
// text shorter than one window.
TextWindows make_windows(const Tokenizer& tokenizer, const std::vector<NamedText>& texts,
                         const TextOptions& options);

// Windows that ranges are found on, 16,384 tokens: ranges need less text than rounding does, and
// looking at every value costs more than computing it.
int range_window_count(int length);

// The beginnings of the first windows, and of the last.
std::vector<Window> few(const std::vector<Window>& windows, size_t count, size_t length);
std::vector<Window> last_few(const std::vector<Window>& windows, size_t count, size_t length);

}  // namespace qnpu
