// The state of a run that learns, so that it can be started again where it stopped; removed when
// the artifact is there.
#pragma once

#include <filesystem>
#include <utility>

namespace qnpu {

class WorkFolder {
 public:
  explicit WorkFolder(std::filesystem::path path) : path_(std::move(path)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path rounded() const { return path_ / "rounded.safetensors"; }

  void remove() const;  // what runs write, and the folder if nothing else is in it

 private:
  std::filesystem::path path_;
};

}  // namespace qnpu
