// The log of a run: RUN/log.jsonl, one JSON object a line, which `qnpu watch` and other programs
// read while it grows (docs/commands.md has its keys). A process writes one log at most; before one
// is open, and after it is closed, everything here does nothing.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace qnpu {

struct RunFolder {
  std::filesystem::path path;  // made if it is not there
  // Else a run that fails takes its log away again, unless the folder holds more than that.
  bool keep = true;
};

// Begins with an event "start": the command line, this process, and `about`. Appends to a log that
// is there. Of several processes that work together (RANK) only the first writes. Error: not
// writable, or another process is writing it.
void open_run_log(const RunFolder& run, nlohmann::json about = nlohmann::json::object());

// One line, `values` (an object) with "time" and "event", in one write. What cannot be written
// later than at the start ends the log, with a message, and not the run.
void log_event(const char* event, nlohmann::json values);

void log_result(nlohmann::json result);  // kept for the end

// With an event "end": the exit code, and the result or what went wrong.
void close_run_log(int code, const std::string& error = "");

// The log in a run's folder, or beside an artifact. Error if there is none.
std::filesystem::path find_run_log(const std::filesystem::path& run_or_artifact);

// Error if a run's folder is `out` or inside it, and so would be replaced by what the run makes.
void check_apart(const std::filesystem::path& run, const std::filesystem::path& out);

// The folder of a run that makes `out`, if no other is named.
std::filesystem::path run_folder_of(const std::filesystem::path& out);

pid_t writer_of(const std::filesystem::path& log);  // the process that has it open here; 0: none

std::string host_name();

}  // namespace qnpu
