#include "quant/spill.h"

#include <memory>

#include "io/nameless_file.h"

namespace qnpu {
namespace {

void close_file(void* file) { delete static_cast<NamelessFile*>(file); }

// The one that the tensor lives in, or nullptr.
const NamelessFile* file_of(const torch::Tensor& tensor) {
  return tensor.storage().data_ptr().cast_context<NamelessFile>(&close_file);
}

}  // namespace

torch::Tensor spilled(const torch::Tensor& tensor, const std::filesystem::path& folder) {
  const torch::Tensor dense = tensor.contiguous();
  const std::span bytes(static_cast<const std::byte*>(dense.data_ptr()), dense.nbytes());
  auto file = std::make_unique<NamelessFile>(folder, bytes);
  std::byte* data = file->bytes().data();
  c10::DataPtr owner(data, file.release(), &close_file, torch::kCPU);
  const c10::Storage storage(c10::Storage::use_byte_size_t(), bytes.size(), std::move(owner),
                             /*allocator=*/nullptr, /*resizable=*/false);
  return torch::empty({0}, dense.options()).set_(storage, 0, dense.sizes());
}

bool is_spilled(const torch::Tensor& tensor) { return file_of(tensor) != nullptr; }

void replace(torch::Tensor& weight, const torch::Tensor& value) {
  const NamelessFile* file = file_of(weight);
  if (file == nullptr) {
    weight = value;
    return;
  }
  const torch::Tensor kept = spilled(value, file->folder());
  file->release_pages();  // others may share the old weight
  weight = kept;
}

void release_pages(const torch::Tensor& weight) {
  if (const NamelessFile* file = file_of(weight)) file->release_pages();
}

}  // namespace qnpu
