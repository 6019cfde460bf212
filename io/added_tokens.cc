#include "io/added_tokens.h"

#include <algorithm>

#include "base/status.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

// The character that ends at `position`, which must be above 0.
Utf8Char utf8_before(std::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (text[position] & 0xC0) == 0x80);
  return utf8_at(text, position);
}

size_t skip_spaces_back(std::string_view text, size_t position) {
  while (position > 0) {
    const Utf8Char c = utf8_before(text, position);
    if (!is_whitespace(c.code)) break;
    position -= c.length;
  }
  return position;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool touches_before = begin > 0 && is_word(utf8_before(text, begin).code);
  const bool touches_after = end < text.size() && is_word(utf8_at(text, end).code);
  return !touches_before && !touches_after;
}

AddedToken read_token(const JsonPart& part) {
  AddedToken token;
  token.content = part.text("content");
  token.special = part.flag("special", false);
  token.single_word = part.flag("single_word", false);
  token.lstrip = part.flag("lstrip", false);
  token.rstrip = part.flag("rstrip", false);
  token.normalized = part.flag("normalized", !token.special);
  token.id = part.number("id");
  return token;
}

// `tokenizers` asks the vocabulary first and counts on from there, whatever the file says; a model
// may have been trained with either.
void check_id(const AddedToken& token, int expected, const JsonPart& part) {
  if (token.id == expected) return;
  part.fail_here(
      fmt::format("the added token {} has the id {}, but the tokenizers library gives it {}",
                  token.content, token.id, expected));
}

}  // namespace

void TokenFinder::add(std::string_view pattern, const AddedToken* token) {
  if (pattern.empty()) return;
  begins_[static_cast<uint8_t>(pattern[0])] = true;
  int node = 0;
  for (const char c : pattern) {
    const auto [child, is_new] = nodes_[node].next.emplace(c, static_cast<int>(nodes_.size()));
    node = child->second;
    if (is_new) nodes_.emplace_back();
  }
  if (nodes_[node].token == nullptr) nodes_[node].token = token;
}

const AddedToken* TokenFinder::longest_at(std::string_view text, size_t position,
                                          size_t& length) const {
  const AddedToken* longest = nullptr;
  int node = 0;
  for (size_t i = position; i < text.size(); ++i) {
    const auto child = nodes_[node].next.find(text[i]);
    if (child == nodes_[node].next.end()) break;
    node = child->second;
    if (nodes_[node].token == nullptr) continue;
    longest = nodes_[node].token;
    length = i + 1 - position;
  }
  return longest;
}

void TokenFinder::cut(std::string_view text,
                      const std::function<void(std::string_view, size_t)>& plain,
                      const std::function<void(const AddedToken&)>& found) const {
  size_t done = 0, length = 0;
  for (size_t i = 0; i < text.size(); i += std::max<size_t>(length, 1)) {
    length = 0;
    if (!begins_[static_cast<uint8_t>(text[i])]) continue;
    const AddedToken* token = longest_at(text, i, length);
    if (token == nullptr) continue;
    size_t begin = i, end = i + length;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    // White space that the token before has taken is gone.
    if (token->lstrip) begin = std::max(skip_spaces_back(text, begin), done);
    if (token->rstrip) end = skip(text, end, is_whitespace);
    if (begin >= end) continue;  // white space itself, and taken by the token before
    if (begin > done) plain(text.substr(done, begin - done), done);
    found(*token);
    done = end;
  }
  if (done < text.size()) plain(text.substr(done), done);
}

AddedTokens::AddedTokens(const JsonPart& part, const Vocabulary& vocabulary,
                         const Normalizer& normalizer) {
  if (!part.has("added_tokens")) return;
  for (const JsonPart& entry : part.list("added_tokens")) {
    AddedToken token = read_token(entry);
    const int id = token.id;
    by_id_.insert_or_assign(id, std::move(token));
  }
  int next = static_cast<int>(vocabulary.size());
  for (const auto& [id, token] : by_id_) {
    const auto known = vocabulary.find(token.content);
    check_id(token, known != vocabulary.end() ? known->second : next, part);
    next = std::max(next, id + 1);
  }
  for (const auto& [id, token] : by_id_) {
    if (!token.normalized) {
      raw_.add(token.content, &token);
    } else {
      normalized_.add(normalizer ? normalizer(token.content) : token.content, &token);
    }
  }
}

}  // namespace qnpu
