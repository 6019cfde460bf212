// Programs in Python that drive tools which the user installs (the NPU's compiler and emulator).
// They speak in lines of JSON on standard output: {"progress": [step, done, total]}, {"error":
// sentence}, or {"result": value}; what else is printed goes to a log.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/qnpu/progress.h"

namespace qnpu {

// Runs `script` (a path below the project, "npu/htp/compile.py") and returns its result. Error: its
// own sentence, or how it ended and where the log is; throws Interrupted.
nlohmann::json run_tool(const std::string& script, const std::vector<std::string>& arguments,
                        const std::filesystem::path& log, Progress& progress);

}  // namespace qnpu
