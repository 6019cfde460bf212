// Byte-pair encoding: a word's characters are merged pair by pair, the merge learned first first.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/json_part.h"

namespace qnpu {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocabulary = std::unordered_map<std::string, int, StringHash, std::equal_to<>>;

class Bpe {
 public:
  // The `model` of a tokenizer.json. With `byte_level`, words are bytes to be written in the byte
  // alphabet. Error: another kind of model, an entry that is damaged.
  Bpe(const JsonPart& part, bool byte_level);

  void encode(std::string_view word, std::vector<int>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int rank;
    int id;
  };
  struct Symbol {
    int id;
    int previous, next;  // positions; -1: none. A merged symbol has id -1.
  };
  class Queue;

  void read_vocabulary(const JsonPart& part);
  void read_merges(const JsonPart& part);
  void add_joint(const std::string& left, const std::string& right);
  void add_merge(const std::string& left, const std::string& right, const JsonPart& part);
  std::vector<int> encode_new(std::string_view word) const;
  void add_character(std::string_view character, int& unknown, std::vector<int>& ids) const;
  bool add_bytes(std::string_view character, std::vector<int>& ids) const;
  void merge(std::span<const int> ids, std::vector<int>& merged) const;
  void merge_stretch(std::span<const int> ids, std::vector<int>& merged) const;
  const Merge* merge_of(int left, int right) const;

  bool byte_level_;
  bool byte_fallback_, ignore_merges_, fuse_unknown_;
  std::string prefix_;  // of characters inside a word
  std::string suffix_;  // of a word's last character
  std::string unknown_;
  int unknown_id_ = -1;
  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
  // Neighbouring characters that some merge joins, by ids as above. Between any other two a word
  // can be cut, and its parts merged alone: text without a pre-tokenizer is one word.
  std::unordered_set<uint64_t> joints_;
  bool cuts_ = true;  // false: merges also join what is no character, so joints say too little

  // Words are met again and again. Shared by all threads that encode.
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::vector<int>, StringHash, std::equal_to<>> cache_;
};

}  // namespace qnpu
