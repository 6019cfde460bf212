#include "io/normalizer.h"

#include <map>

#include "base/status.h"
#include "io/pattern.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

Normalizer make_sequence(const JsonPart& part) {
  std::vector<Normalizer> steps;
  for (const JsonPart& step : part.list("normalizers")) steps.push_back(make_normalizer(step));
  return [steps](std::string text) {
    for (const Normalizer& step : steps) text = step(std::move(text));
    return text;
  };
}

}  // namespace

Normalizer make_normalizer(const JsonPart& part) {
  static const std::map<std::string, NormalForm> forms = {{"NFC", NormalForm::kNfc},
                                                          {"NFD", NormalForm::kNfd},
                                                          {"NFKC", NormalForm::kNfkc},
                                                          {"NFKD", NormalForm::kNfkd}};
  const std::string kind = part.kind();
  if (const auto form = forms.find(kind); form != forms.end()) {
    return [form = form->second](const std::string& text) { return normalize(text, form); };
  }
  if (kind == "Sequence") return make_sequence(part);
  if (kind == "Prepend") {
    return [prefix = part.text("prepend")](const std::string& text) {
      return text.empty() ? text : prefix + text;
    };
  }
  if (kind == "Replace") {
    return [pattern = Pattern(part.at("pattern")), content = part.text("content")](
               const std::string& text) { return pattern.replace_all(text, content); };
  }
  part.fail_unknown_kind("NFC, NFD, NFKC, NFKD, Sequence, Prepend, Replace");
}

}  // namespace qnpu
