// What an NPU can do, read from a file of targets/: which widths each operation of the node list
// may have, which weights, how much memory. Every number there names its public source or the
// measurement that it comes from, under "sources".
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qnpu {

// Widths in bits of a node's activations: of its inputs, in order, and of its output. The files
// write them as "16x8>16".
struct Widths {
  std::vector<int> in;
  int out = 0;
  bool operator==(const Widths&) const = default;
};
std::string to_text(const Widths& widths);

struct Target {
  std::string name;  // "SM8750"
  int soc_model = 0;
  std::string htp_arch;                                   // "v79"
  std::map<std::string, std::vector<Widths>> operations;  // by op_name
  std::vector<int> weight_bits;                           // per output channel, symmetric
  std::vector<int> weight_blocks;                         // sizes of blocks of 4-bit weights (LPBQ)
  double session_mb = 0;                                  // that one process of the NPU can map
  // Only where they are known; `file` says where they would stand.
  double tcm_mb = 0;
  double memory_gb_per_s = 0;  // peak of the main memory
  double npu_speed = 0;        // of the matrix and vector units, as a multiple of the SM8750's
  std::string file;

  bool has_speed() const { return tcm_mb > 0 && memory_gb_per_s > 0 && npu_speed > 0; }
};

// Error names the file and the key: missing, of another type, not positive, or not understood.
Target load_target(const std::filesystem::path& path);

}  // namespace qnpu
