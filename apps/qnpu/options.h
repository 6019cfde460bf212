// Options that several commands have.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>

#include "export/decoder.h"

namespace qnpu {

inline void add_json_flag(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "Print one JSON object on standard output");
}

struct ArtifactOptions {
  std::filesystem::path artifact;
  bool json = false;
};

inline void add_artifact_options(CLI::App& command, ArtifactOptions& o) {
  command.add_option("artifact", o.artifact, "Folder that `qnpu quantize` wrote")->required();
  add_json_flag(command, o.json);
}

// Of exported graphs. `part.count` 0: as many as the binaries' sizes ask for.
inline void add_graph_options(CLI::App& command, DecoderOptions& graph) {
  graph.part.count = 0;
  command.add_option("--rows", graph.rows, "Tokens that the prefill graph takes")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--context", graph.context, "Positions of the cache, the prefix included")
      ->capture_default_str();
  command
      .add_option("--most-scores", graph.most_scores,
                  "Scores of attention that one operation computes; more are cut into several")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--split", graph.part.count,
                  "Parts into which the graphs are cut between layers (default: as few as the "
                  "limit of a binary allows)")
      ->check(CLI::Range(1, 256));
}

}  // namespace qnpu
