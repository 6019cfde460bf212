#include "apps/qnpu/report_file.h"

#include <algorithm>
#include <memory>
#include <system_error>

#include "apps/qnpu/inspected.h"
#include "base/status.h"
#include "io/files.h"
#include "io/folder_name.h"
#include "report/report.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json read_printed(const fs::path& path, const char* command, const char* key, const char* or_key) {
  json printed = read_json(path);
  if (printed.is_object() && (printed.contains(key) || printed.contains(or_key))) return printed;
  fail("{} is not what `qnpu {} --json` prints: it holds no \"{}\" and no \"{}\"", path.string(),
       command, key, or_key);
}

// Of the artifact's files, a report among them aside: a report that is written again is the same.
int64_t size_without_report(const fs::path& folder) {
  std::error_code none;
  const auto report = fs::file_size(report_in(folder), none);
  return folder_bytes(folder) - (none ? 0 : static_cast<int64_t>(report));
}

ReportInput input_of(const ReportSource& source, const Artifact& artifact) {
  const Inspected inspected = inspect_artifact(artifact);
  ReportInput input;
  input.name = folder_name(source.artifact);
  input.artifact = &artifact;
  input.inspected =
      to_json(inspected, site_rows(inspected.graph, inspected.recipe, inspected.report, "*"));
  input.inspected["size_bytes"] = size_without_report(source.artifact);
  input.measured = inspected.report;
  for (const fs::path& path : source.evaluations) {
    const auto same = [&](const auto& e) { return e.first == path.stem().string(); };
    if (std::ranges::any_of(input.evaluations, same)) {
      fail("two evaluations are called {}: a file's name is the label, so rename one",
           path.stem().string());
    }
    input.evaluations.emplace_back(path.stem().string(),
                                   read_printed(path, "eval", "perplexity", "tasks"));
  }
  if (!source.bench.empty()) input.bench = read_printed(source.bench, "bench", "decode", "prefill");
  return input;
}

}  // namespace

fs::path report_in(const fs::path& artifact) { return artifact / "report.html"; }

int64_t write_report_file(const ReportSource& source, const ReportSource& other,
                          const fs::path& out) {
  std::error_code error;
  if (fs::is_directory(out, error)) {
    fail("{} is a folder; give --out the name of a file, such as report.html", out.string());
  }
  const auto artifact = load_artifact(source.artifact);
  ReportInput first = input_of(source, *artifact);
  std::string page;
  if (other.artifact.empty()) {
    first.name.clear();  // the same report wherever the artifact is moved
    page = html_report(first, nullptr);
  } else {
    const auto second = load_artifact(other.artifact);
    const ReportInput input = input_of(other, *second);
    page = html_report(first, &input);
  }
  write_file(out, page);
  return static_cast<int64_t>(page.size());
}

}  // namespace qnpu
