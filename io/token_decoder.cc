#include "io/token_decoder.h"

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "io/byte_alphabet.h"
#include "io/pattern.h"

namespace qnpu {

namespace {

using Tokens = std::vector<std::string>;

void decode_byte_level(Tokens& tokens) {
  for (std::string& token : tokens) {
    std::string bytes;
    // A token that was added by hand may hold any character; it stands for itself.
    if (append_from_byte_alphabet(token, bytes)) token = std::move(bytes);
  }
}

// "<0xE2>" to its byte. Bytes are not checked to be UTF-8: tokens may be decoded one by one.
void decode_bytes(Tokens& tokens) {
  for (std::string& token : tokens) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') continue;
    unsigned byte = 0;
    const char* end = token.data() + 5;
    if (std::from_chars(token.data() + 3, end, byte, 16).ptr == end) {
      token.assign(1, static_cast<char>(byte));
    }
  }
}

void fuse(Tokens& tokens) {
  std::string whole;
  for (const std::string& token : tokens) whole += token;
  tokens = {std::move(whole)};
}

// Up to `start` and `stop` copies of `content` off each token's ends.
void strip(Tokens& tokens, const std::string& content, int start, int stop) {
  for (std::string& token : tokens) {
    for (int i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
    for (int i = 0; i < stop && token.ends_with(content); ++i) {
      token.resize(token.size() - content.size());
    }
  }
}

// Marks become spaces, but for those that the first token was given by the pre-tokenizer.
void decode_metaspace(Tokens& tokens, const Pattern& mark, bool prepended) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = mark.replace_all(tokens[i], i == 0 && prepended ? "" : " ");
  }
}

TokenDecoder make_sequence(const JsonPart& part) {
  std::vector<TokenDecoder> steps;
  for (const JsonPart& step : part.list("decoders")) steps.push_back(make_token_decoder(step));
  return [steps](Tokens& tokens) {
    for (const TokenDecoder& step : steps) step(tokens);
  };
}

TokenDecoder make_strip(const JsonPart& part) {
  const std::string content = part.text("content");
  if (content.empty()) part.fail_here("the content to strip is empty");
  return [content, start = part.number("start"), stop = part.number("stop")](Tokens& tokens) {
    strip(tokens, content, start, stop);
  };
}

TokenDecoder make_metaspace(const JsonPart& part) {
  const char* otherwise = part.flag("add_prefix_space", true) ? "always" : "never";
  const bool prepended = part.text("prepend_scheme", otherwise) != "never";
  return [mark = Pattern(part.text("replacement", "\u2581")), prepended](Tokens& tokens) {
    decode_metaspace(tokens, mark, prepended);
  };
}

}  // namespace

TokenDecoder make_token_decoder(const JsonPart& part) {
  const std::string kind = part.kind();
  if (kind == "Sequence") return make_sequence(part);
  if (kind == "ByteLevel") return decode_byte_level;
  if (kind == "ByteFallback") return decode_bytes;
  if (kind == "Fuse") return fuse;
  if (kind == "Strip") return make_strip(part);
  if (kind == "Metaspace") return make_metaspace(part);
  if (kind == "Replace") {
    return [pattern = Pattern(part.at("pattern")), content = part.text("content")](Tokens& tokens) {
      for (std::string& token : tokens) token = pattern.replace_all(token, content);
    };
  }
  part.fail_unknown_kind("Sequence, ByteLevel, ByteFallback, Fuse, Strip, Metaspace, Replace");
}

}  // namespace qnpu
