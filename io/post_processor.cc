#include "io/post_processor.h"

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {

namespace {

std::vector<int> ids_of(const JsonPart& token) {
  const JsonPart ids = token.at("ids");
  if (!ids.value().is_array()) ids.fail_here("is not a list");
  std::vector<int> result;
  for (const auto& id : ids.value()) {
    if (!id.is_number_unsigned()) ids.fail_here("holds something that is not an id");
    result.push_back(id);
  }
  return result;
}

SpecialTokens read_template(const JsonPart& part) {
  SpecialTokens result;
  bool after = false;
  for (const JsonPart& item : part.list("single")) {
    if (item.has("Sequence")) {
      if (after) item.fail_here("the text stands twice in the template, which is not supported");
      after = true;
      continue;
    }
    const std::string name = item.at("SpecialToken").text("id");
    std::vector<int>& list = after ? result.after : result.before;
    for (const int id : ids_of(part.at("special_tokens").at_any(name))) list.push_back(id);
  }
  if (!after) part.fail_here("the template has no place for the text");
  return result;
}

// Each step puts its tokens around what the steps before it made.
SpecialTokens read_sequence(const JsonPart& part) {
  SpecialTokens all;
  for (const JsonPart& step : part.list("processors")) {
    const SpecialTokens tokens = read_post_processor(step);
    all.before.insert(all.before.begin(), tokens.before.begin(), tokens.before.end());
    all.after.insert(all.after.end(), tokens.after.begin(), tokens.after.end());
  }
  return all;
}

// A token is written as a string or as {"content": "..."}.
int configured_token(const JsonPart& config, const char* key, const TokenId& id_of) {
  if (!config.has(key)) config.fail_here(fmt::format("{} is missing, but is to be added", key));
  const bool is_object = config.at(key).value().is_object();
  const std::string token = is_object ? config.at(key).text("content") : config.text(key);
  const int id = id_of(token);
  if (id < 0) config.fail_here(fmt::format("{} {} is not in tokenizer.json", key, token));
  return id;
}

}  // namespace

SpecialTokens read_post_processor(const JsonPart& part) {
  const std::string kind = part.kind();
  if (kind == "ByteLevel") return {};  // changes offsets only
  if (kind == "TemplateProcessing") return read_template(part);
  if (kind == "Sequence") return read_sequence(part);
  part.fail_unknown_kind("TemplateProcessing, ByteLevel, Sequence");
}

SpecialTokens special_tokens_of_config(const std::filesystem::path& file, const TokenId& id_of) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return {};
  const nlohmann::json json = read_json(file);
  const JsonPart config(json, file.string());
  const std::string family = config.text("tokenizer_class", "");
  if (!family.starts_with("Llama") && !family.starts_with("CodeLlama")) return {};
  SpecialTokens result;
  if (config.flag("add_bos_token", true)) {
    result.before.push_back(configured_token(config, "bos_token", id_of));
  }
  if (config.flag("add_eos_token", false)) {
    result.after.push_back(configured_token(config, "eos_token", id_of));
  }
  return result;
}

}  // namespace qnpu
