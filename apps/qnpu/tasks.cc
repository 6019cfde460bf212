#include "apps/qnpu/tasks.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/status.h"
#include "io/files.h"
#include "io/unicode.h"
#include "model/tokens.h"

namespace qnpu {
namespace {

using nlohmann::json;

constexpr std::string_view kWhitespace = " \t\n\v\f\r";

json parse_line(std::string_view line, const std::string& where) {
  const json item = json::accept(line) ? parse_json(line, where) : json();
  if (!item.is_object()) {
    fail("{}: not a JSON object; a line is {{\"query\": ..., \"choices\": [...], \"gold\": ...}}",
         where);
  }
  for (const auto& [key, value] : item.items()) {
    if (key == "query" || key == "choices" || key == "gold") continue;
    fail("{}: the key '{}' is not known; known are query, choices and gold", where, key);
  }
  return item;
}

std::string query_of(const json& item, const std::string& where) {
  if (!item.contains("query") || !item.at("query").is_string()) {
    fail("{}: 'query' must be a text", where);
  }
  return item.at("query");
}

std::vector<std::string> choices_of(const json& item, const std::string& where) {
  if (!item.contains("choices") || !item.at("choices").is_array() || item.at("choices").empty()) {
    fail("{}: 'choices' must be a list of at least one text", where);
  }
  std::vector<std::string> choices;
  for (const json& choice : item.at("choices")) {
    const bool text = choice.is_string() && !choice.get_ref<const std::string&>().empty();
    if (!text) fail("{}: choice {} must be a text that is not empty", where, choices.size());
    choices.push_back(choice);
  }
  return choices;
}

int gold_of(const json& item, size_t choices, const std::string& where) {
  const json gold = item.value("gold", json());
  if (!gold.is_number_integer() || gold < 0 || gold >= choices) {
    fail("{}: 'gold' must be the index of a choice, from 0 to {}, not {}", where, choices - 1,
         gold.dump());
  }
  return gold;
}

// The query's last white space goes to the continuation, as lm-evaluation-harness does it: a token
// may hold it and the beginning of the choice.
std::string without_trailing_space(const std::string& query) {
  return query.substr(0, query.find_last_not_of(kWhitespace) + 1);
}

TaskItem read_item(const Tokenizer& tokenizer, std::string_view line, const std::string& where) {
  const json parsed = parse_line(line, where);
  const std::string query = query_of(parsed, where);
  const std::vector<std::string> choices = choices_of(parsed, where);
  TaskItem item;
  item.gold = gold_of(parsed, choices.size(), where);
  item.context = static_cast<int>(token_sequence(tokenizer, without_trailing_space(query)).size());
  if (item.context == 0) fail("{}: the query has no token that a choice could follow", where);
  for (const std::string& choice : choices) {
    const std::vector<int> tokens = token_sequence(tokenizer, query + " " + choice);
    if (tokens.size() <= item.context) {
      fail("{}: choice {} adds no token to the query", where, item.sequences.size());
    }
    item.sequences.emplace_back(tokens.begin(), tokens.end());
    item.characters.push_back(count_characters(choice));
  }
  return item;
}

}  // namespace

int Task::longest() const {
  size_t longest = 0;
  for (const TaskItem& item : items) {
    for (const auto& sequence : item.sequences) longest = std::max(longest, sequence.size() - 1);
  }
  return static_cast<int>(longest);
}

Task load_task(const Tokenizer& tokenizer, const std::filesystem::path& path, int limit) {
  Task task{path, path.stem().string(), {}};
  const std::string content = read_text(path);
  int number = 0;
  for (size_t begin = 0; begin < content.size();) {
    if (limit > 0 && task.items.size() == limit) break;
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line = std::string_view(content).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(kWhitespace) == std::string_view::npos) continue;
    const std::string where = fmt::format("{}, line {}", path.string(), number);
    task.items.push_back(read_item(tokenizer, line, where));
    task.items.back().line = number;
  }
  if (task.items.empty()) fail("{} holds no items", path.string());
  return task;
}

std::vector<Task> load_tasks(const Tokenizer& tokenizer,
                             const std::vector<std::filesystem::path>& paths, int limit) {
  std::vector<Task> tasks;
  for (const auto& path : paths) {
    for (const Task& other : tasks) {
      if (other.name != path.stem().string()) continue;
      fail("{} and {} have one name; results are named by it, so rename one", other.path.string(),
           path.string());
    }
    tasks.push_back(load_task(tokenizer, path, limit));
  }
  return tasks;
}

}  // namespace qnpu
