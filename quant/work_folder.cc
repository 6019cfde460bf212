#include "quant/work_folder.h"

#include <system_error>

namespace qnpu {

namespace fs = std::filesystem;

void WorkFolder::remove() const {
  std::error_code none;
  for (const char* name : {"learn.safetensors", "rounded.safetensors", "tune.safetensors"}) {
    fs::remove(path_ / name, none);
  }
  fs::remove(path_, none);
}

}  // namespace qnpu
