#include "server/choice_text.h"

#include <algorithm>

#include "io/unicode.h"

namespace qnpu::server {

TextPart ChoiceText::add(const TokenOutput& output) {
  if (stopped_) return {};
  tokens_.push_back({output, before_, token_bytes(tokenizer_, before_, output.token),
                     static_cast<int>(held_.size())});
  before_ = output.token;
  if (!output.is_prompt) {
    if (!output.is_end) held_ += stream_.add(output.token);
    return release_before_stop(false);
  }
  if (tokenizer_.is_special(output.token)) held_ += stream_.finish() + tokens_.back().bytes;
  held_ += stream_.add(output.token);
  return release(held_.size());
}

TextPart ChoiceText::finish() {
  if (stopped_) return {};
  held_ += stream_.finish();
  return release_before_stop(true);
}

// Length of the longest end of the text that begins a stop text.
size_t ChoiceText::possible_stop() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

// Where the stop text begins that is complete first, and of several such the longest: however the
// text is cut into tokens. npos if there is none.
size_t ChoiceText::find_stop() const {
  size_t begin = std::string::npos, end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found == std::string::npos || found + stop.size() > end) continue;
    begin = found + stop.size() == end ? std::min(begin, found) : found;
    end = found + stop.size();
  }
  return begin;
}

TextPart ChoiceText::release_before_stop(bool all) {
  const size_t stop = find_stop();
  if (stop != std::string::npos) {
    stopped_ = true;
    held_.resize(stop);
    std::erase_if(tokens_,
                  [&](const TextToken& t) { return static_cast<size_t>(t.offset) >= stop; });
    return release(stop);
  }
  return release(all ? held_.size() : held_.size() - possible_stop());
}

// The text up to `end`, and the tokens that begin in it; at the end of all text also those that
// add nothing to it.
TextPart ChoiceText::release(size_t end) {
  TextPart part{held_.substr(0, end), {}};
  const bool whole = end == held_.size();
  size_t count = 0;
  while (count < tokens_.size() && (whole || static_cast<size_t>(tokens_[count].offset) < end)) {
    TextToken& token = tokens_[count++];
    const auto before = std::string_view(part.text).substr(0, static_cast<size_t>(token.offset));
    token.offset = characters_ + static_cast<int>(count_characters(before));
    part.tokens.push_back(std::move(token));
  }
  tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(count));
  for (TextToken& token : tokens_) token.offset -= static_cast<int>(end);
  characters_ += static_cast<int>(count_characters(part.text));
  held_.erase(0, end);
  return part;
}

}  // namespace qnpu::server
