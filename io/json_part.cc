#include "io/json_part.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"

namespace qnpu {

JsonPart::JsonPart(const nlohmann::json& value, std::string where)
    : value_(&value), where_(std::move(where)) {}

bool JsonPart::has(const char* key) const {
  return value_->is_object() && value_->contains(key) && !(*value_)[key].is_null();
}

JsonPart JsonPart::at_any(const std::string& key) const {
  if (!has(key.c_str())) fail_here(fmt::format("\"{}\" is missing", key));
  return {(*value_)[key], fmt::format("{} {}", where_, key)};
}

JsonPart JsonPart::at(const char* key) const { return at_any(key); }

std::vector<JsonPart> JsonPart::list(const char* key) const {
  const JsonPart part = at(key);
  if (!part.value_->is_array()) part.fail_here("is not a list");
  std::vector<JsonPart> parts;
  for (size_t i = 0; i < part.value_->size(); ++i) {
    parts.emplace_back((*part.value_)[i], fmt::format("{}[{}]", part.where_, i));
  }
  return parts;
}

std::string JsonPart::text(const char* key) const {
  const JsonPart part = at(key);
  if (!part.value_->is_string()) part.fail_here("is not a string");
  return *part.value_;
}

std::string JsonPart::text(const char* key, const char* otherwise) const {
  return has(key) ? text(key) : otherwise;
}

bool JsonPart::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const JsonPart part = at(key);
  if (!part.value_->is_boolean()) part.fail_here("is not true or false");
  return *part.value_;
}

int JsonPart::number(const char* key) const {
  const JsonPart part = at(key);
  if (!part.value_->is_number_unsigned() || part.value_->get<uint64_t>() >= (1u << 24)) {
    part.fail_here("is not a number from 0 to 2^24");
  }
  return *part.value_;
}

void JsonPart::fail_here(std::string_view what) const {
  fail("{}: {}; the file is damaged or of an unknown version", where_, what);
}

void JsonPart::fail_unknown_kind(std::string_view supported) const {
  fail("{}: the kind {} is not supported (supported: {})", where_, kind(), supported);
}

}  // namespace qnpu
