// From folders and files to the HTML file of a report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace qnpu {

// An artifact, and what was measured of it.
struct ReportSource {
  std::filesystem::path artifact;
  std::vector<std::filesystem::path> evaluations;  // what `qnpu eval --json` printed
  std::filesystem::path bench;                     // what `qnpu bench --json` printed; or none
};

// Writes the report of one artifact, or of two side by side (`other.artifact` not empty); returns
// its bytes. The file is there as a whole or not at all. Error: what cannot be read or is something
// else; two models of different shapes.
int64_t write_report_file(const ReportSource& source, const ReportSource& other,
                          const std::filesystem::path& out);

// The report's place in an artifact's folder.
std::filesystem::path report_in(const std::filesystem::path& artifact);

}  // namespace qnpu
