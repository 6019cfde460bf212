#include "server/api/fields.h"

#include "io/files.h"

namespace qnpu::server {
namespace {

using nlohmann::json;

constexpr int kDeepest = 32;

// Texts of requests are long; an error shows their beginning.
std::string shown(const json& value) {
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

bool asks_for_nothing(const json& value) {
  switch (value.type()) {
    case json::value_t::boolean:
      return !value.get<bool>();
    case json::value_t::string:
      return value.get_ref<const std::string&>().empty();
    case json::value_t::array:
    case json::value_t::object:
      return value.empty();
    default:
      return value.is_number() && value == 0;
  }
}

}  // namespace

json parse_object(std::string_view body) {
  json value;
  try {
    value = json::parse(body);
  } catch (const json::exception& error) {
    const std::string what = error.what();  // "[json.exception. ...] sentence"
    throw ApiError(400, "We could not parse the JSON body of your request: " +
                            what.substr(std::min(what.size(), what.find("] ") + 2)));
  }
  if (is_deeper(value, kDeepest)) {
    throw ApiError(400, fmt::format("The JSON is nested more than {} levels deep.", kDeepest));
  }
  if (!value.is_object()) throw ApiError(400, "The body of a request must be a JSON object.");
  return value;
}

Fields::Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    bad_field(path_, "'{}' must be an object, not {}.", path_, shown(object));
}

const json* Fields::find(const char* name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string Fields::name_of(const char* name) const {
  return path_.empty() ? name : fmt::format("{}.{}", path_, name);
}

bool Fields::flag(const char* name, bool otherwise) {
  const json* value = find(name);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  bad_field(name_of(name), "'{}' must be true or false, not {}.", name_of(name), shown(*value));
}

std::optional<int> Fields::integer(const char* name, int low, int high) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    bad_field(name_of(name), "'{}' must be an integer, not {}.", name_of(name), shown(*value));
  }
  if (*value < low || *value > high) {
    bad_field(name_of(name), "'{}' must be from {} to {}, not {}.", name_of(name), low, high,
              shown(*value));
  }
  return value->get<int>();
}

int Fields::integer(const char* name, int otherwise, int low, int high) {
  return integer(name, low, high).value_or(otherwise);
}

double Fields::number(const char* name, double otherwise, double low, double high) {
  const json* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_number()) {
    bad_field(name_of(name), "'{}' must be a number, not {}.", name_of(name), shown(*value));
  }
  const double number = value->get<double>();
  if (!(number >= low && number <= high)) {
    bad_field(name_of(name), "'{}' must be from {} to {}, not {}.", name_of(name), low, high,
              shown(*value));
  }
  return number;
}

std::optional<uint64_t> Fields::seed(const char* name) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  if (value->is_number_integer()) return static_cast<uint64_t>(value->get<int64_t>());
  bad_field(name_of(name), "'{}' must be an integer of 64 bits, not {}.", name_of(name),
            shown(*value));
}

std::string Fields::text(const char* name, const std::string& otherwise) {
  const json* value = find(name);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  bad_field(name_of(name), "'{}' must be a text, not {}.", name_of(name), shown(*value));
}

std::vector<std::string> Fields::texts(const char* name, size_t most) {
  const json* value = find(name);
  if (value == nullptr) return {};
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > most) {
    bad_field(name_of(name), "'{}' has {} texts; at most {} are allowed.", name_of(name),
              list.size(), most);
  }
  std::vector<std::string> texts;
  for (const json& entry : list) {
    if (!entry.is_string() || entry.get_ref<const std::string&>().empty()) {
      bad_field(name_of(name),
                "'{}' must be a text or a list of texts, none of them empty, not {}.",
                name_of(name), shown(*value));
    }
    texts.push_back(entry);
  }
  return texts;
}

void Fields::ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

void Fields::refuse(const char* name, const json& neutral) {
  const json* value = find(name);
  if (value == nullptr || asks_for_nothing(*value) || *value == neutral) return;
  throw ApiError(400,
                 fmt::format("'{}' is not supported by this server; leave it out.", name_of(name)),
                 name_of(name), "unsupported_parameter");
}

void Fields::finish() const {
  for (const auto& [name, value] : object_.items()) {
    if (known_.contains(name)) continue;
    const std::string path = name_of(name.c_str());
    throw ApiError(400, fmt::format("Unrecognized request argument supplied: {}", path), path,
                   "unknown_parameter");
  }
}

}  // namespace qnpu::server
