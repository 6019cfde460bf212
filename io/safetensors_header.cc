#include "io/safetensors_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace {

using nlohmann::json;

// The limit of the format's own library; a larger number is a damaged length field.
constexpr uint64_t kMaxHeader = 100'000'000;

constexpr const char* kAgain = "the file is damaged, fetch or write it again";

// JSON text to a value; a name that is there twice would otherwise be dropped in silence.
json parse_unique(std::string_view text, const std::string& path) {
  std::set<std::string> names;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDeepestJson) fail("{}: its header is nested too deeply; {}", path, kAgain);
    if (depth == 1 && event == json::parse_event_t::key) {
      if (!names.insert(parsed.get<std::string>()).second) {
        fail("{}: the tensor {} is listed twice; {}", path, parsed.get<std::string>(), kAgain);
      }
    }
    return true;
  };
  try {
    json header = json::parse(text, check);
    if (!header.is_object()) fail("{}: its header is not a JSON object; {}", path, kAgain);
    return header;
  } catch (const json::parse_error& error) {
    fail("{}: its header is not valid JSON (byte {}); {}", path, error.byte, kAgain);
  } catch (const json::exception&) {
    fail("{}: its header holds a number that is out of range; {}", path, kAgain);
  }
}

// Bytes of a tensor, or nothing where the product does not fit.
bool tensor_bytes(const std::vector<int64_t>& shape, size_t element, size_t& bytes) {
  bytes = element;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes)) return false;
  }
  return true;
}

bool is_size(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() < (uint64_t{1} << 62);
}

bool is_sizes(const json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), is_size);
}

void check_shape(const SafetensorsEntry& entry, const std::string& path) {
  const size_t element = dtype_size(entry.dtype);
  if (element == 0) {
    fail("{}: the tensor {} has the unknown type {}; convert the checkpoint to F32, F16 or BF16",
         path, entry.name, entry.dtype);
  }
  size_t bytes = 0;
  if (!tensor_bytes(entry.shape, element, bytes) || bytes != entry.end - entry.begin) {
    fail("{}: the tensor {} holds {} bytes, which is not what its shape [{}] of {} needs; {}", path,
         entry.name, entry.end - entry.begin, fmt::join(entry.shape, ", "), entry.dtype, kAgain);
  }
}

SafetensorsEntry parse_entry(const std::string& name, const json& value, size_t data_bytes,
                             const std::string& path) {
  const bool complete = value.is_object() && value.contains("dtype") &&
                        value["dtype"].is_string() && value.contains("shape") &&
                        is_sizes(value["shape"]) && value.contains("data_offsets") &&
                        is_sizes(value["data_offsets"]) && value["data_offsets"].size() == 2;
  if (!complete) {
    fail("{}: the entry of the tensor {} needs dtype, shape and two data_offsets; {}", path, name,
         kAgain);
  }
  SafetensorsEntry entry{name, value["dtype"], value["shape"], value["data_offsets"][0],
                         value["data_offsets"][1]};
  if (entry.begin > entry.end || entry.end > data_bytes) {
    fail(
        "{}: the tensor {} is said to lie at bytes {} to {} of {}: the file is cut short or "
        "damaged, fetch or write it again",
        path, name, entry.begin, entry.end, data_bytes);
  }
  check_shape(entry, path);
  return entry;
}

void parse_metadata(const json& value, SafetensorsHeader& header, const std::string& path) {
  if (!value.is_object()) fail("{}: __metadata__ is not an object; {}", path, kAgain);
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail("{}: __metadata__ {} is not a string; {}", path, key, kAgain);
    header.metadata[key] = text;
  }
}

// The format allows neither overlaps nor bytes that belong to no tensor.
void check_cover(const std::vector<SafetensorsEntry>& sorted, size_t data_bytes,
                 const std::string& path) {
  size_t position = 0;
  for (const SafetensorsEntry& entry : sorted) {
    if (entry.begin < position) {
      fail("{}: the tensor {} overlaps the one before it; {}", path, entry.name, kAgain);
    }
    if (entry.begin > position) {
      fail("{}: {} bytes before the tensor {} belong to no tensor; {}", path,
           entry.begin - position, entry.name, kAgain);
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    fail("{}: {} bytes at its end belong to no tensor; {}", path, data_bytes - position, kAgain);
  }
}

std::string_view header_text(std::span<const std::byte> file, const std::string& path) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    fail("{}: a file of {} bytes is too short for safetensors; fetch it again", path, file.size());
  }
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kMaxHeader || length > file.size() - sizeof(length)) {
    fail(
        "{}: its header is said to have {} bytes, but the file has {}: it is cut short or no "
        "safetensors file, fetch it again",
        path, length, file.size());
  }
  return {reinterpret_cast<const char*>(file.data()) + sizeof(length), length};
}

}  // namespace

size_t dtype_size(const std::string& dtype) {
  static const std::map<std::string, size_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& path) {
  const std::string_view text = header_text(file, path);
  SafetensorsHeader header;
  header.data_start = sizeof(uint64_t) + text.size();
  const size_t data_bytes = file.size() - header.data_start;
  const json parsed = parse_unique(text, path);
  for (const auto& [name, value] : parsed.items()) {
    if (name == "__metadata__") {
      parse_metadata(value, header, path);
    } else {
      header.tensors.push_back(parse_entry(name, value, data_bytes, path));
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_cover(header.tensors, data_bytes, path);
  return header;
}

std::string format_safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  for (const SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      fail("{}: the tensor {} is given twice; give each name once", path, entry.name);
    }
    check_shape(entry, path);
    header[entry.name] = {
        {"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  return header.dump();
}

}  // namespace qnpu
