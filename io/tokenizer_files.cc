#include "io/tokenizer_files.h"

#include "io/files.h"

namespace qnpu {

void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
  // Without generation_config.json the end tokens are in config.json.
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                           "config.json", "chat_template.jinja", "special_tokens_map.json"}) {
    if (std::filesystem::exists(from / name)) write_file(to / name, read_file(from / name));
  }
}

}  // namespace qnpu
