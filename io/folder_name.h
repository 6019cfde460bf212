// What a folder is called where its path says too much: a model's name, an artifact's.
#pragma once

#include <filesystem>
#include <string>

namespace qnpu {

// The last word of the path as given: of "models/tiny/" it is "tiny"; of "." the current folder's.
inline std::string folder_name(const std::filesystem::path& folder) {
  const auto path = std::filesystem::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace qnpu
