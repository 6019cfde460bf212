// The JSON header of a safetensors file: the checks that make every later access safe.
#pragma once

#include "io/safetensors.h"

namespace qnpu {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  size_t begin = 0, end = 0;  // within the data
};

struct SafetensorsHeader {
  size_t data_start = 0;
  std::vector<SafetensorsEntry> tensors;  // by position; they cover the data without gap or overlap
  std::map<std::string, std::string> metadata;
};

// `file` is the whole file, `path` its name for messages. Error: anything the format does not
// allow.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& path);

// Header text for entries laid one after another. Error: unknown type, size that is not the
// shape's, a name given twice.
std::string format_safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path);

}  // namespace qnpu
