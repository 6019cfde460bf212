#include "io/bpe.h"

#include <nlohmann/json.hpp>
#include <queue>
#include <tuple>

#include "base/status.h"
#include "io/byte_alphabet.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

constexpr size_t kCachedWords = 1 << 14;
constexpr size_t kLongestCached = 256;  // longer words hardly come twice

uint64_t pair_key(int left, int right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const JsonPart& part, bool byte_level) : byte_level_(byte_level) {
  // Files of the first version name no type; only BPE has merges.
  const bool is_bpe = part.has("type") ? part.kind() == "BPE" : part.has("merges");
  if (!is_bpe) part.fail_unknown_kind("BPE");
  if (part.has("dropout") && part.value()["dropout"] != 0.0) {
    part.fail_here("dropout makes tokens random, which is not supported");
  }
  byte_fallback_ = part.flag("byte_fallback", false);
  ignore_merges_ = part.flag("ignore_merges", false);
  fuse_unknown_ = part.flag("fuse_unk", false);
  prefix_ = part.text("continuing_subword_prefix", "");
  suffix_ = part.text("end_of_word_suffix", "");
  cuts_ = prefix_.empty() && suffix_.empty();
  read_vocabulary(part);
  unknown_ = part.text("unk_token", "");
  if (const auto found = vocabulary_.find(unknown_); found != vocabulary_.end()) {
    unknown_id_ = found->second;
  }
  read_merges(part);
}

void Bpe::read_vocabulary(const JsonPart& part) {
  const JsonPart vocabulary = part.at("vocab");
  if (!vocabulary.value().is_object()) vocabulary.fail_here("is not an object");
  vocabulary_.reserve(vocabulary.value().size());
  for (const auto& [token, id] : vocabulary.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= (1u << 24)) {
      vocabulary.fail_here(fmt::format("the id of {} is not a number from 0 to 2^24", token));
    }
    vocabulary_.emplace(token, id.get<int>());
  }
}

// A merge is "left right" or, in newer files, ["left", "right"] (then tokens may hold spaces).
void Bpe::read_merges(const JsonPart& part) {
  const JsonPart merges = part.at("merges");
  if (!merges.value().is_array()) merges.fail_here("is not a list");
  merges_.reserve(merges.value().size());
  for (const auto& merge : merges.value()) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == text.npos) merges.fail_here(fmt::format("{} is no pair", text));
      add_merge(text.substr(0, space), text.substr(space + 1), merges);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(merge[0], merge[1], merges);
    } else {
      merges.fail_here(fmt::format("{} is no pair", merge.dump()));
    }
  }
}

void Bpe::add_merge(const std::string& left, const std::string& right, const JsonPart& part) {
  if (left.empty() || right.empty()) part.fail_here("a merge has an empty part");
  const bool inside = !prefix_.empty() && right.starts_with(prefix_);
  const std::string whole = left + (inside ? right.substr(prefix_.size()) : right);
  const auto id_of = [&](const std::string& token) {
    const auto found = vocabulary_.find(token);
    if (found == vocabulary_.end()) {
      part.fail_here(fmt::format("the merge of {} and {} needs {}, which is not in the vocabulary",
                                 left, right, token));
    }
    return found->second;
  };
  add_joint(left, right);
  const int rank = static_cast<int>(merges_.size());
  merges_.insert_or_assign(pair_key(id_of(left), id_of(right)), Merge{rank, id_of(whole)});
}

void Bpe::add_joint(const std::string& left, const std::string& right) {
  for (const std::string& token : {left, right}) {
    const size_t byte = token.find("<0x");
    const bool joins_bytes = byte != token.npos && token.substr(byte).find('>') == 5;
    const bool joins_unknown = !unknown_.empty() && token.find(unknown_) != token.npos;
    if (joins_bytes || joins_unknown) cuts_ = false;
  }
  size_t last = left.size() - 1;
  while (last > 0 && (left[last] & 0xC0) == 0x80) --last;
  const std::string_view first = std::string_view(right).substr(0, utf8_at(right, 0).length);
  const auto left_id = vocabulary_.find(std::string_view(left).substr(last));
  const auto right_id = vocabulary_.find(first);
  // A character that is no token by itself is never where a word starts from.
  if (left_id == vocabulary_.end() || right_id == vocabulary_.end()) return;
  joints_.insert(pair_key(left_id->second, right_id->second));
}

void Bpe::encode(std::string_view word, std::vector<int>& ids) const {
  if (word.size() > kLongestCached) {
    const std::vector<int> found = encode_new(word);
    ids.insert(ids.end(), found.begin(), found.end());
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (const auto hit = cache_.find(word); hit != cache_.end()) {
      ids.insert(ids.end(), hit->second.begin(), hit->second.end());
      return;
    }
  }
  std::vector<int> found = encode_new(word);
  ids.insert(ids.end(), found.begin(), found.end());
  const std::lock_guard lock(mutex_);
  if (cache_.size() < kCachedWords) cache_.emplace(word, std::move(found));
}

std::vector<int> Bpe::encode_new(std::string_view raw) const {
  const std::string mapped = byte_level_ ? to_byte_alphabet(raw) : std::string();
  const std::string_view word = byte_level_ ? mapped : raw;
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.find(word); whole != vocabulary_.end()) {
      return {whole->second};
    }
  }
  std::vector<int> ids;
  int unknown = 0;  // characters not yet written as the unknown token
  std::string decorated;
  for (size_t i = 0; i < word.size();) {
    const size_t length = static_cast<size_t>(utf8_at(word, i).length);
    std::string_view character = word.substr(i, length);
    const bool first = i == 0, last = i + length == word.size();
    if ((!first && !prefix_.empty()) || (last && !suffix_.empty())) {
      decorated.assign(first ? "" : prefix_).append(character).append(last ? suffix_ : "");
      character = decorated;
    }
    add_character(character, unknown, ids);
    i += length;
  }
  if (unknown > 0) ids.push_back(unknown_id_);
  std::vector<int> merged;
  merge(ids, merged);
  return merged;
}

// A character outside the vocabulary becomes its bytes' tokens, or else the unknown token, or else
// nothing. The order of the last two is that of `tokenizers`, where bytes overtake an unknown token
// that is still open.
void Bpe::add_character(std::string_view character, int& unknown, std::vector<int>& ids) const {
  if (const auto found = vocabulary_.find(character); found != vocabulary_.end()) {
    if (unknown > 0) ids.push_back(unknown_id_);
    unknown = 0;
    ids.push_back(found->second);
    return;
  }
  if (byte_fallback_ && add_bytes(character, ids)) return;
  if (unknown_id_ < 0) return;
  if (unknown > 0 && !fuse_unknown_) ids.push_back(unknown_id_);
  ++unknown;
}

bool Bpe::add_bytes(std::string_view character, std::vector<int>& ids) const {
  const size_t start = ids.size();
  for (const char byte : character) {
    const auto found = vocabulary_.find(fmt::format("<0x{:02X}>", static_cast<uint8_t>(byte)));
    if (found == vocabulary_.end()) {
      ids.resize(start);
      return false;
    }
    ids.push_back(found->second);
  }
  return true;
}

const Bpe::Merge* Bpe::merge_of(int left, int right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Merges that are possible, best first: the lowest rank, then the leftmost. Entries go stale when a
// neighbour is merged away; that is noticed when they come up. O(n log n) for any word.
class Bpe::Queue {
 public:
  Queue(const Bpe& bpe, std::vector<Symbol>& symbols) : bpe_(bpe), symbols_(symbols) {
    for (size_t i = 0; i + 1 < symbols.size(); ++i) push(static_cast<int>(i));
  }

  void push(int left) {
    if (left < 0 || symbols_[left].next < 0) return;
    const Symbol& symbol = symbols_[left];
    const Merge* merge = bpe_.merge_of(symbol.id, symbols_[symbol.next].id);
    if (merge != nullptr) heap_.push({merge->rank, left, merge->id});
  }

  // The left symbol of the next merge and the id that it gets; false: there is none.
  bool pop(int& left, int& id) {
    while (!heap_.empty()) {
      std::tie(std::ignore, left, id) = heap_.top();
      heap_.pop();
      const Symbol& symbol = symbols_[left];
      if (symbol.id < 0 || symbol.next < 0) continue;
      const Merge* merge = bpe_.merge_of(symbol.id, symbols_[symbol.next].id);
      if (merge != nullptr && merge->id == id) return true;
    }
    return false;
  }

 private:
  using Entry = std::tuple<int, int, int>;  // rank, position, id
  const Bpe& bpe_;
  std::vector<Symbol>& symbols_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap_;
};

void Bpe::merge(std::span<const int> ids, std::vector<int>& merged) const {
  size_t start = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    if (!cuts_ || joints_.contains(pair_key(ids[i - 1], ids[i]))) continue;
    merge_stretch(ids.subspan(start, i - start), merged);
    start = i;
  }
  merge_stretch(ids.subspan(start), merged);
}

void Bpe::merge_stretch(std::span<const int> ids, std::vector<int>& merged) const {
  const int count = static_cast<int>(ids.size());
  if (count < 2) {
    merged.insert(merged.end(), ids.begin(), ids.end());
    return;
  }
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (int i = 0; i < count; ++i) symbols.push_back({ids[i], i - 1, i + 1 < count ? i + 1 : -1});
  Queue queue(*this, symbols);
  for (int left = 0, id = 0; queue.pop(left, id);) {
    Symbol& symbol = symbols[left];
    const int right = symbol.next;
    symbol.id = id;
    symbol.next = symbols[right].next;
    symbols[right].id = -1;
    if (symbol.next >= 0) symbols[symbol.next].previous = left;
    queue.push(symbol.previous);
    queue.push(left);
  }
  for (int i = 0; i >= 0; i = symbols[i].next) merged.push_back(symbols[i].id);
}

}  // namespace qnpu
