// Exported graphs through the NPU's own compiler, which the user installs.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/qnpu/progress.h"

namespace qnpu {

struct Compilation {
  std::string soc;
  std::vector<std::string> graphs = {"prefill", "decode"};
  bool share = false;     // one binary for all graphs of a part, which the emulator cannot load
  bool in_order = false;  // the parts' names in the binaries come in order
};

// Compiles what `write_onnx` left in `folder`; binaries and a log come beside it. The result is
// that of npu/htp/compile.py. Error: the compiler's own words, with the site that they are about.
nlohmann::json compile_graphs(const std::filesystem::path& folder, const Compilation& wanted,
                              Progress& progress);

// Changes with anything of this program that decides what is exported and compiled.
std::string exporter_checksum(const std::string& soc);

}  // namespace qnpu
