// The large constants of one or more ONNX graphs, in one file beside them (ONNX "external data").
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace qnpu {

class WeightFile {
 public:
  explicit WeightFile(std::string file_name) : file_name_(std::move(file_name)) {}

  struct Place {
    int64_t offset = 0;
    int64_t bytes = 0;
    size_t part = 0;
  };
  // A view that must live until `write`. The same name again is the same constant.
  Place add(const std::string& name, std::span<const std::byte> data);
  // The same, of bytes that the file keeps.
  Place add(const std::string& name, std::vector<std::byte> data);

  bool contains(const std::string& name) const { return places_.contains(name); }
  std::span<const std::byte> view(const std::string& name) const;  // of a constant that was added

  const std::string& file_name() const { return file_name_; }
  int64_t bytes() const { return end_; }
  void write(const std::filesystem::path& folder) const;  // Error: disk full

 private:
  std::string file_name_;
  std::map<std::string, Place> places_;
  std::vector<std::span<const std::byte>> parts_;  // in the order of the file
  std::vector<std::vector<std::byte>> owned_;
  int64_t end_ = 0;
};

}  // namespace qnpu
