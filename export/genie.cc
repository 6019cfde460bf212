#include "export/genie.h"

#include <nlohmann/json.hpp>

namespace qnpu {

using nlohmann::json;

json genie_config(const Artifact& artifact, const GenieSettings& settings) {
  const ModelConfig& config = artifact.graph.config;
  const int visible = settings.context - artifact.graph.prefix_length();
  json end = settings.end_tokens;
  if (settings.end_tokens.size() == 1) end = settings.end_tokens[0];
  if (settings.end_tokens.empty()) end = -1;
  const json htp = {{"version", 1},
                    {"use-mmap", false},
                    {"spill-fill-bufsize", 0},
                    {"mmap-budget", 0},
                    {"poll", false},
                    {"cpu-mask", "0xe0"},
                    {"kv-dim", config.head_dim},
                    {"enable-graph-switching", false},
                    {"allow-async-init", false}};
  const json engine = {{"version", 1},
                       {"n-threads", 3},
                       {"backend",
                        {{"version", 1},
                         {"type", "QnnHtp"},
                         {"QnnHtp", htp},
                         {"extensions", "htp_backend_ext_config.json"}}},
                       {"model",
                        {{"version", 1},
                         {"type", "binary"},
                         {"binary", {{"version", 1}, {"ctx-bins", settings.binaries}}},
                         {"positional-encoding", {{"type", "absolute"}}}}}};
  return {{"dialog",
           {{"version", 1},
            {"type", "basic"},
            {"context",
             {{"version", 1},
              {"size", visible},
              {"n-vocab", config.vocab_size},
              {"bos-token", settings.bos_token},
              {"eos-token", end}}},
            {"sampler",
             {{"version", 1},
              {"seed", 42},
              {"temp", 1.0},
              {"top-k", 1},
              {"top-p", 1.0},
              {"greedy", true}}},
            {"tokenizer", {{"version", 1}, {"path", "tokenizer.json"}}},
            {"engine", engine}}}};
}

json genie_backend_config(int soc_model, const std::string& dsp_arch) {
  return {{"devices", {{{"soc_model", soc_model}, {"dsp_arch", dsp_arch}}}}};
}

}  // namespace qnpu
