// OUT.work: the state of a run that learns, beside the artifact that it will make, so that it can
// be started again where it stopped; removed when the artifact is there.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace qnpu {

class WorkFolder {
 public:
  explicit WorkFolder(const std::filesystem::path& out) : path_(out.string() + ".work") {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path rounded() const { return path_ / "rounded.safetensors"; }

  // One line to the section's log.
  void log(const std::string& section, int step, double loss);

  void remove() const;  // what runs write, and the folder if nothing else is in it

 private:
  std::filesystem::path path_;
  std::map<std::string, std::ofstream> logs_;
};

}  // namespace qnpu
