// safetensors files: read by mmap, written atomically. Layout: 8 bytes little-endian header length,
// a JSON header {name: {dtype, shape, data_offsets}}, then the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace qnpu {

size_t dtype_size(const std::string& dtype);  // bytes of an element; 0 if the type is unknown

// One tensor of a file: a view into the mapping, valid while the file is open.
struct TensorView {
  std::string dtype;  // as written: "F32", "F16", "BF16", "I8", "U8", "I16", "I32", "U32", "I64"
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;

  int64_t elements() const;
  template <typename T>
  std::span<const T> as() const {  // Error if the type's elements have another size
    check_element(sizeof(T));
    return {reinterpret_cast<const T*>(data), bytes / sizeof(T)};
  }
  void check_element(size_t size) const;
};

// A read-only memory map of a whole file.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // Error: missing, empty, unreadable
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A file, or the shards of an index, as one map of names. Every header is checked against the
// file's size, shapes and types; Error names file, tensor and what is wrong.
class TensorFile {
 public:
  static TensorFile open(const std::filesystem::path& path);
  // A checkpoint folder: model.safetensors, or model.safetensors.index.json and its shards.
  static TensorFile open_checkpoint(const std::filesystem::path& folder);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  bool contains(const std::string& name) const { return tensors_.count(name) > 0; }
  const TensorView& at(const std::string& name) const;  // Error if missing
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  void add(const std::filesystem::path& path);
  std::string path_;
  std::vector<std::shared_ptr<MappedFile>> files_;
  std::vector<std::shared_ptr<std::vector<std::byte>>> copies_;  // of misaligned tensors
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A tensor without its data.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
};

// A tensor to write; `data` must stay alive until write_safetensors returns.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// Writes to a temporary name beside `path`, syncs and renames. Each tensor starts at a multiple of
// 64 bytes of the file; where a size is not one, a U8 tensor `__padding__.N` fills the gap (the
// format allows no holes), which TensorFile hides. Tensors are written in the order given. Error
// (disk full, no permission) leaves an earlier file as it was and no temporary file behind.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Bytes of the file that write_safetensors makes of such tensors, whatever their data.
int64_t safetensors_bytes(const std::vector<TensorSpec>& tensors,
                          const std::map<std::string, std::string>& metadata = {});

// Gives the memory of a part of a mapped file back; who reads it again gets it from the file.
void release_mapped_pages(const void* data, size_t bytes);

}  // namespace qnpu
