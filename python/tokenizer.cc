// Text and tokens.
#include "io/tokenizer.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "io/token_stream.h"
#include "io/unicode.h"
#include "python/bindings.h"

namespace qnpu::python {
namespace {

using Release = nb::call_guard<nb::gil_scoped_release>;

// Keeps the tokenizer that it reads from.
struct TextStream {
  TextStream(std::shared_ptr<const Tokenizer> from, int last_of_prompt)
      : tokenizer(std::move(from)), stream(*tokenizer, last_of_prompt) {}
  std::shared_ptr<const Tokenizer> tokenizer;
  TokenStream stream;
};

std::string decode(const Tokenizer& tokenizer, const std::vector<int>& tokens, bool skip_special) {
  return replace_invalid_utf8(tokenizer.decode(tokens, skip_special));
}

std::optional<int> token_to_id(const Tokenizer& tokenizer, const std::string& token) {
  const int id = tokenizer.token_to_id(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

void add_text_stream(nb::module_& module) {
  nb::class_<TextStream>(module, "TextStream",
                         "Tokens one by one as text: a character comes once all its bytes are "
                         "there.")
      .def(nb::init<std::shared_ptr<const Tokenizer>, int>(), nb::arg("tokenizer"),
           nb::arg("last_of_prompt"), "`last_of_prompt`: the token before the first one.")
      .def(
          "add", [](TextStream& s, int token) { return s.stream.add(token); }, nb::arg("token"),
          "What can be shown now that could not be before.")
      .def(
          "finish", [](TextStream& s) { return s.stream.finish(); },
          "The rest; an incomplete character becomes U+FFFD.")
      .def_prop_ro(
          "text", [](const TextStream& s) { return s.stream.text(); }, "All that was shown.");
}

}  // namespace

void add_tokenizer(nb::module_& module) {
  nb::class_<Tokenizer>(module, "Tokenizer", "Text to tokens and back, by a tokenizer.json.")
      .def_static(
          "load",
          [](const std::filesystem::path& folder) {
            return std::make_shared<Tokenizer>(Tokenizer::load(folder));
          },
          nb::arg("folder"), Release(), "Of an artifact or a checkpoint.")
      .def("encode", &Tokenizer::encode, nb::arg("text"), nb::kw_only(),
           nb::arg("add_special_tokens") = true, Release(),
           "Tokens of a text. BOS and EOS are added if the tokenizer does that for a text.")
      .def("decode", decode, nb::arg("tokens"), nb::kw_only(),
           nb::arg("skip_special_tokens") = false, Release(),
           "Text of tokens; bytes that are no whole character become U+FFFD.")
      .def("token_to_id", token_to_id, nb::arg("token"), "None for an unknown token.")
      .def("id_to_token", &Tokenizer::id_to_token, nb::arg("id"))
      .def("is_special", &Tokenizer::is_special, nb::arg("id"))
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size, "The largest id and 1.");
  add_text_stream(module);
}

}  // namespace qnpu::python
