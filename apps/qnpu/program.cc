#include "apps/qnpu/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

char** arguments = nullptr;

fs::path program_folder() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) fail("cannot find out where this program lies: {}", error.message());
  return self.parent_path();
}

// An installation has bin/ and share/ side by side; a build uses its sources.
std::vector<fs::path> shared_folders() {
  return {program_folder() / "../share/quantnpu", fs::path(QNPU_SOURCE_DIR)};
}

// Stems of the .json files in the program's folder `kind`: "recipes" or "targets".
std::vector<std::string> known_names(const std::string& kind) {
  std::vector<std::string> names;
  for (const fs::path& folder : shared_folders()) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder / kind, error)) {
      if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

// The file that comes with the program; empty if there is none of this name.
fs::path known_file(const std::string& kind, const std::string& name) {
  if (fs::path(name).filename() != name) return {};
  for (const fs::path& folder : shared_folders()) {
    fs::path path = folder / kind / (name + ".json");
    std::error_code error;
    if (fs::exists(path, error)) return path;
  }
  return {};
}

[[noreturn]] void fail_unknown(const std::string& what, const std::string& name,
                               const std::vector<std::string>& names) {
  const std::string near = nearest_word(name, names);
  fail("there is no {} '{}'{}; known are {}, or give a file that ends in .json", what, name,
       near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), fmt::join(names, ", "));
}

std::string in_case(std::string text, int (*change)(int)) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [&](unsigned char c) { return static_cast<char>(change(c)); });
  return text;
}

// Levenshtein's, one row of the table at a time.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is that of the stream; opened for what nobody does with it.
    ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

void remember_arguments(int, char** argv) { arguments = argv; }

char** program_arguments() { return arguments; }

void become_learning_program() {
  const fs::path program = program_folder() / "qnpu-learn";
  // libtorch's OpenMP threads else spin for milliseconds at every barrier, which on a busy machine
  // is most of the time. Read by the runtime when the program is loaded, so it is too late there.
  ::setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  ::execv(program.c_str(), arguments);
  if (errno != ENOENT) fail("cannot start {}: {}", program.string(), std::strerror(errno));
  fail(
      "this build has no learning tools, which read float checkpoints; install libtorch, build "
      "with "
      "-DQNPU_LEARN=ON and keep qnpu-learn beside qnpu");
}

fs::path find_shared(const std::string& file) {
  for (const fs::path& folder : shared_folders()) {
    std::error_code error;
    if (fs::exists(folder / file, error)) return folder / file;
  }
  fail("{} is missing beside this program; install it again", file);
}

std::string nearest_word(const std::string& word, const std::vector<std::string>& words) {
  std::string best;
  size_t least = 1 + word.size() / 3;  // farther words are no slips of the finger
  for (const std::string& candidate : words) {
    const size_t distance = edit_distance(word, candidate);
    if (distance > least || (distance == least && !best.empty())) continue;
    least = distance;
    best = candidate;
  }
  return best;
}

std::vector<std::string> recipe_names() { return known_names("recipes"); }

std::vector<std::string> target_names() {
  std::vector<std::string> names = known_names("targets");
  for (std::string& name : names) name = in_case(name, std::toupper);
  return names;
}

fs::path find_recipe(const std::string& name) {
  if (fs::path(name).extension() == ".json") return name;
  fs::path path = known_file("recipes", name);
  if (path.empty()) fail_unknown("recipe", name, recipe_names());
  return path;
}

fs::path find_target(const std::string& name) {
  if (fs::path(name).extension() == ".json") return name;
  fs::path path = known_file("targets", in_case(name, std::tolower));
  if (!path.empty()) return path;
  fail_unknown("target", name, target_names());
}

void check_is_no_input(const fs::path& out, const std::vector<fs::path>& inputs) {
  std::error_code ignored;
  for (const fs::path& input : inputs) {
    if (!fs::equivalent(out, input, ignored)) continue;
    fail("{} would be overwritten, but this command reads it; choose another file to write",
         input.string());
  }
}

void check_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  fail("cannot write to standard output: {}", std::strerror(errno));
}

void print_json(const nlohmann::json& json) {
  std::fprintf(stdout, "%s\n", json_text(json).c_str());
  check_output();
}

}  // namespace qnpu
