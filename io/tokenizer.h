// Text to token ids and back, from a Hugging Face `tokenizer.json`: byte-level BPE with its
// pre-tokenizer expressions (GPT-2, Llama 3, Qwen, SmolLM families) and byte-fallback BPE
// (Llama 2 family). Ids equal those of the `tokenizers` library. (Characters newer than Unicode 14,
// the version of PCRE2 and utf8proc here, may be split differently.)
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qnpu {

class Tokenizer {
 public:
  // Reads `tokenizer.json` (and `tokenizer_config.json` if there is one) from a folder.
  // Throws Error naming the file and the part that is missing, damaged or of an unknown kind.
  static Tokenizer load(const std::filesystem::path& folder);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Special tokens written in the text are recognised. `add_special_tokens` applies the
  // post-processor (BOS and EOS rules). Invalid UTF-8 becomes U+FFFD, as in `tokenizers`.
  std::vector<int> encode(std::string_view text, bool add_special_tokens) const;

  // Bytes of the tokens; may end inside a UTF-8 character when tokens are decoded one by one.
  std::string decode(const std::vector<int>& ids, bool skip_special_tokens = false) const;

  int vocab_size() const;                         // largest id + 1
  int token_to_id(std::string_view token) const;  // -1 if unknown
  bool has_token(int id) const;                   // models may have ids without one
  std::string id_to_token(int id) const;          // Error if there is none
  bool is_special(int id) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qnpu
