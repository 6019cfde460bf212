// The parts of a tokenizer put together:
//   text -> added tokens cut out -> normalizer -> pre-tokenizer -> BPE -> post-processor -> ids
#include "io/tokenizer.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/status.h"
#include "io/added_tokens.h"
#include "io/bpe.h"
#include "io/files.h"
#include "io/json_part.h"
#include "io/normalizer.h"
#include "io/post_processor.h"
#include "io/pretokenizer.h"
#include "io/token_decoder.h"
#include "io/unicode.h"

namespace qnpu {

struct Tokenizer::Impl {
  Impl(const JsonPart& file, const std::filesystem::path& config);

  void encode_raw(std::string_view text, bool at_start, std::vector<int>& ids) const;
  void encode_words(std::string_view text, bool at_start, std::vector<int>& ids) const;
  int id_of(std::string_view token) const;
  void index_tokens();

  Normalizer normalizer;  // empty: none
  PreTokenizers pretokenizers;
  Bpe bpe;
  AddedTokens added;
  SpecialTokens special;
  TokenDecoder decoder;                            // empty: none
  std::vector<std::optional<std::string>> tokens;  // by id
  std::string file;
};

namespace {

Normalizer normalizer_of(const JsonPart& file) {
  return file.has("normalizer") ? make_normalizer(file.at("normalizer")) : Normalizer();
}

PreTokenizers pretokenizers_of(const JsonPart& file) {
  return file.has("pre_tokenizer") ? make_pretokenizers(file.at("pre_tokenizer")) : PreTokenizers();
}

}  // namespace

Tokenizer::Impl::Impl(const JsonPart& part, const std::filesystem::path& config)
    : normalizer(normalizer_of(part)),
      pretokenizers(pretokenizers_of(part)),
      bpe(part.at("model"), pretokenizers.byte_level),
      added(part, bpe.vocabulary(), normalizer) {
  if (part.has("decoder")) decoder = make_token_decoder(part.at("decoder"));
  const auto id = [this](const std::string& token) { return id_of(token); };
  special = part.has("post_processor") ? read_post_processor(part.at("post_processor"))
                                       : special_tokens_of_config(config, id);
  index_tokens();
}

void Tokenizer::Impl::index_tokens() {
  const auto set = [this](int id, const std::string& token) {
    if (id >= static_cast<int>(tokens.size())) tokens.resize(static_cast<size_t>(id) + 1);
    tokens[id] = token;
  };
  for (const auto& [token, id] : bpe.vocabulary()) set(id, token);
  // Of those that are looked for in normalized text `tokenizers` writes what is looked for.
  for (const auto& [id, token] : added.by_id()) {
    set(id, token.normalized && normalizer ? normalizer(token.content) : token.content);
  }
}

int Tokenizer::Impl::id_of(std::string_view token) const {
  for (const auto& [id, entry] : added.by_id()) {
    if (entry.content == token) return id;
  }
  const auto found = bpe.vocabulary().find(token);
  return found == bpe.vocabulary().end() ? -1 : found->second;
}

// Text without those tokens that are looked for in raw text.
void Tokenizer::Impl::encode_raw(std::string_view text, bool at_start,
                                 std::vector<int>& ids) const {
  const std::string normalized = normalizer ? normalizer(std::string(text)) : std::string();
  added.in_normalized_text().cut(
      normalizer ? normalized : text,
      [&](std::string_view plain, size_t at) { encode_words(plain, at_start && at == 0, ids); },
      [&](const AddedToken& token) { ids.push_back(token.id); });
}

void Tokenizer::Impl::encode_words(std::string_view text, bool at_start,
                                   std::vector<int>& ids) const {
  TextPieces pieces;
  pretokenizers.split({text, at_start}, pieces);
  for (const TextPiece& piece : pieces.list) bpe.encode(piece.text, ids);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  const nlohmann::json json = read_json(file);
  const JsonPart part(json, file.string());
  auto impl = std::make_unique<Impl>(part, folder / "tokenizer_config.json");
  impl->file = file.string();
  return Tokenizer(std::move(impl));
}

std::vector<int> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!is_ascii(text) && count_invalid_utf8(text) > 0) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  std::vector<int> ids;
  const SpecialTokens& special = impl_->special;
  if (add_special_tokens) ids = special.before;
  impl_->added.in_raw_text().cut(
      text, [&](std::string_view plain, size_t at) { impl_->encode_raw(plain, at == 0, ids); },
      [&](const AddedToken& token) { ids.push_back(token.id); });
  if (add_special_tokens) ids.insert(ids.end(), special.after.begin(), special.after.end());
  return ids;
}

std::string Tokenizer::decode(const std::vector<int>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (const int id : ids) {
    if (skip_special_tokens && is_special(id)) continue;
    tokens.push_back(id_to_token(id));
  }
  const char* separator = impl_->decoder ? "" : " ";
  if (impl_->decoder) impl_->decoder(tokens);
  return fmt::format("{}", fmt::join(tokens, separator));
}

int Tokenizer::vocab_size() const { return static_cast<int>(impl_->tokens.size()); }

int Tokenizer::token_to_id(std::string_view token) const { return impl_->id_of(token); }

bool Tokenizer::has_token(int id) const {
  return id >= 0 && id < vocab_size() && impl_->tokens[id].has_value();
}

std::string Tokenizer::id_to_token(int id) const {
  if (!has_token(id)) {
    fail("{} has no token of the id {}; its ids are below {}", impl_->file, id, vocab_size());
  }
  return *impl_->tokens[id];
}

bool Tokenizer::is_special(int id) const {
  const auto found = impl_->added.by_id().find(id);
  return found != impl_->added.by_id().end() && found->second.special;
}

}  // namespace qnpu
