#include "io/safetensors.h"

#include <algorithm>

#include "base/status.h"
#include "io/atomic_file.h"
#include "io/files.h"
#include "io/safetensors_header.h"

namespace qnpu {

namespace {

constexpr size_t kAlignment = 64;

// The format forbids holes, so what aligns the next tensor is a tensor of its own, hidden on
// reading.
constexpr std::string_view kPaddingPrefix = "__padding__.";

size_t padding(size_t position) { return (kAlignment - position % kAlignment) % kAlignment; }

// Where tensors lie, with what aligns them; positions are relative to the data, itself aligned.
class Layout {
 public:
  void add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           size_t bytes) {
    if (const size_t gap = padding(end()); gap > 0) {
      append(
          {fmt::format("{}{}", kPaddingPrefix, entries_.size()), "U8", {static_cast<int64_t>(gap)}},
          gap);
    }
    append({name, dtype, shape}, bytes);
  }

  // Such that the data behind it is aligned.
  std::string header(const std::map<std::string, std::string>& metadata,
                     const std::string& path) const {
    std::string text = format_safetensors_header(entries_, metadata, path);
    text.append(padding(sizeof(uint64_t) + text.size()), ' ');
    return text;
  }

  size_t end() const { return entries_.empty() ? 0 : entries_.back().end; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

 private:
  void append(SafetensorsEntry entry, size_t bytes) {
    entry.begin = end();
    entry.end = entry.begin + bytes;
    entries_.push_back(std::move(entry));
  }

  std::vector<SafetensorsEntry> entries_;
};

}  // namespace

int64_t TensorView::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

void TensorView::check_element(size_t size) const {
  if (dtype_size(dtype) == size) return;
  fail("a tensor of type {} was to be read as one of {} bits; its file is of another kind", dtype,
       8 * size);
}

TensorFile TensorFile::open(const std::filesystem::path& path) {
  TensorFile file;
  file.path_ = path.string();
  file.add(path);
  return file;
}

void TensorFile::add(const std::filesystem::path& path) {
  auto mapping = std::make_shared<MappedFile>(path);
  const SafetensorsHeader header = parse_safetensors_header(mapping->bytes(), path.string());
  const std::byte* data = mapping->bytes().data() + header.data_start;
  files_.push_back(std::move(mapping));
  for (const auto& entry : header.tensors) {
    if (entry.name.starts_with(kPaddingPrefix)) continue;
    TensorView view{entry.dtype, entry.shape, data + entry.begin, entry.end - entry.begin};
    // Old files have headers of any length; as<T>() needs elements at their natural alignment.
    if (reinterpret_cast<uintptr_t>(view.data) % dtype_size(view.dtype) != 0) {
      copies_.push_back(
          std::make_shared<std::vector<std::byte>>(view.data, view.data + view.bytes));
      view.data = copies_.back()->data();
    }
    if (!tensors_.emplace(entry.name, std::move(view)).second) {
      fail(
          "{}: the tensor {} is also in another shard of this checkpoint; fetch the checkpoint "
          "again, into an empty folder",
          path.string(), entry.name);
    }
  }
  metadata_.insert(header.metadata.begin(), header.metadata.end());
}

const TensorView& TensorFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    fail("{} has no tensor {}; it is incomplete or of another model family", path_, name);
  }
  return found->second;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Layout layout;
  for (const TensorToWrite& tensor : tensors) {
    layout.add(tensor.name, tensor.dtype, tensor.shape, tensor.data.size());
  }
  const std::string header = layout.header(metadata, path.string());
  const uint64_t length = header.size();
  const std::vector<std::byte> zeros(kAlignment);

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(header)));
  auto tensor = tensors.begin();
  for (const SafetensorsEntry& entry : layout.entries()) {
    const bool gap = entry.name.starts_with(kPaddingPrefix);
    file.write(gap ? std::span(zeros).first(entry.end - entry.begin) : (tensor++)->data);
  }
  file.commit();
}

int64_t safetensors_bytes(const std::vector<TensorSpec>& tensors,
                          const std::map<std::string, std::string>& metadata) {
  Layout layout;
  for (const TensorSpec& tensor : tensors) {
    size_t bytes = dtype_size(tensor.dtype);
    for (const int64_t size : tensor.shape) bytes *= static_cast<size_t>(size);
    layout.add(tensor.name, tensor.dtype, tensor.shape, bytes);
  }
  const std::string header = layout.header(metadata, "the file to write");
  return static_cast<int64_t>(sizeof(uint64_t) + header.size() + layout.end());
}

}  // namespace qnpu
