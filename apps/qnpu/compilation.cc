#include "apps/qnpu/compilation.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "apps/qnpu/program.h"
#include "apps/qnpu/tool_process.h"
#include "io/files.h"

namespace qnpu {
namespace {

constexpr const char* kCompiler = "npu/htp/compile.py";

}  // namespace

nlohmann::json compile_graphs(const std::filesystem::path& folder, const Compilation& wanted,
                              Progress& progress) {
  std::vector<std::string> arguments = {folder.string(), "--soc", wanted.soc};
  if (wanted.share) arguments.emplace_back("--share");
  if (wanted.in_order) arguments.emplace_back("--in-order");
  arguments.emplace_back("--graphs");
  arguments.insert(arguments.end(), wanted.graphs.begin(), wanted.graphs.end());
  return run_tool(kCompiler, arguments, folder / ("compile." + wanted.soc + ".log"), progress);
}

std::string exporter_checksum(const std::string& soc) {
  std::string content = read_file("/proc/self/exe");
  for (const char* file : {kCompiler, "npu/htp/part_order.py", "npu/htp/session.py"}) {
    content += read_file(find_shared(file));
  }
  content += read_file(find_target(soc));
  return fmt::format("{:016x}", XXH3_64bits(content.data(), content.size()));
}

}  // namespace qnpu
