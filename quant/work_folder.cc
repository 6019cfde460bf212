#include "quant/work_folder.h"

#include <nlohmann/json.hpp>
#include <system_error>

namespace qnpu {

namespace fs = std::filesystem;

void WorkFolder::log(const std::string& section, int step, double loss) {
  std::ofstream& log = logs_[section];
  if (!log.is_open()) {
    fs::create_directories(path_);
    log.open(path_ / (section + ".jsonl"), std::ios::app);
  }
  log << nlohmann::json{{"step", step}, {"loss", loss}} << std::endl;
}

void WorkFolder::remove() const {
  std::error_code none;
  for (const char* name : {"learn.safetensors", "learn.jsonl", "rounded.safetensors",
                           "tune.safetensors", "tune.jsonl"}) {
    fs::remove(path_ / name, none);
  }
  fs::remove(path_, none);
}

}  // namespace qnpu
