// Tasks that are answered by the likeliest continuation: files of JSON lines, as tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/tokenizer.h"

namespace qnpu {

// A question. Each choice is one sequence: query, space and choice, tokenized as one text. A choice
// is as likely as the tokens from `context` on are after those before.
struct TaskItem {
  int line = 0;                                 // of the file, from 1
  std::vector<std::vector<int32_t>> sequences;  // by choice
  int context = 0;                              // tokens of the query alone, at least 1
  std::vector<int64_t> characters;              // by choice: its length, without the space
  int gold = 0;                                 // the right choice
};

struct Task {
  std::filesystem::path path;
  std::string name;  // the file's, without its ending
  std::vector<TaskItem> items;

  int longest() const;  // tokens that a model is fed for the longest sequence: all but its last
};

// Lines {"query": ..., "choices": [...], "gold": index from 0}, at most `limit` (0: all); empty
// lines are passed over. Error, with file and line: not such an object, an unknown key, a choice
// without text, a gold that is no choice, a query without tokens.
Task load_task(const Tokenizer& tokenizer, const std::filesystem::path& path, int limit);

// One task per file. Error: two files of one name.
std::vector<Task> load_tasks(const Tokenizer& tokenizer,
                             const std::vector<std::filesystem::path>& paths, int limit);

}  // namespace qnpu
