// Logits kept in a file, so that a float model need not run again for every artifact that is
// measured against it. A safetensors file: "tokens" I32 [windows, length], "logits" F16
// [windows * (length - 1), vocab], and metadata {format, version, text_hash}. Each row is stored
// less its largest logit: softmax is the same, and half precision is finest where it matters.
#pragma once

#include <filesystem>
#include <span>

#include "apps/qnpu/logits_source.h"
#include "apps/qnpu/windows.h"
#include "io/atomic_file.h"

namespace qnpu {

// Written row by row; appears under its name only at commit().
class LogitsWriter {
 public:
  LogitsWriter(const std::filesystem::path& path, const Windows& windows, int vocab);
  void write(std::span<const float> rows);  // whole rows; Error: disk full
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
  int vocab_;
  std::vector<uint16_t> halves_;
};

// Error if the file's windows do not begin with these ones: made from another text, with another
// tokenizer or window length, or of fewer windows.
LogitsSource stored_source(const std::filesystem::path& path, const Windows& windows);

}  // namespace qnpu
