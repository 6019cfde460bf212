#include "export/weight_file.h"

#include "io/atomic_file.h"

namespace qnpu {
namespace {

constexpr int64_t kAlignment = 64;

int64_t padding(int64_t bytes) { return (kAlignment - bytes % kAlignment) % kAlignment; }

}  // namespace

WeightFile::Place WeightFile::add(const std::string& name, std::span<const std::byte> data) {
  const auto bytes = static_cast<int64_t>(data.size());
  const auto [place, added] = places_.try_emplace(name, Place{end_, bytes, parts_.size()});
  if (added) {
    parts_.push_back(data);
    end_ += bytes + padding(bytes);
  }
  return place->second;
}

WeightFile::Place WeightFile::add(const std::string& name, std::vector<std::byte> data) {
  const auto found = places_.find(name);
  if (found != places_.end()) return found->second;
  owned_.push_back(std::move(data));
  return add(name, std::span<const std::byte>(owned_.back()));
}

std::span<const std::byte> WeightFile::view(const std::string& name) const {
  return parts_[places_.at(name).part];
}

void WeightFile::write(const std::filesystem::path& folder) const {
  AtomicFile file(folder / file_name_);
  const std::vector<std::byte> zeros(kAlignment);
  for (const std::span<const std::byte> part : parts_) {
    file.write(part);
    file.write(
        std::span(zeros).first(static_cast<size_t>(padding(static_cast<int64_t>(part.size())))));
  }
  file.commit();
}

}  // namespace qnpu
