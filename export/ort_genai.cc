#include "export/ort_genai.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "export/decoder.h"
#include "io/files.h"

namespace qnpu {
namespace {

using nlohmann::json;

std::string number(OnnxGraph& g, int32_t value) {
  return g.constant(fmt::format("int32.{}", value), OnnxType::kS32, {},
                    std::as_bytes(std::span(&value, 1)));
}

// 0 .. count - 1
std::string range(OnnxGraph& g, int64_t count) {
  const auto scalar = [&](int64_t value) {
    return g.constant(fmt::format("scalar.{}", value), OnnxType::kS64, {},
                      std::as_bytes(std::span(&value, 1)));
  };
  return g.op("Range", "range", {scalar(0), scalar(count), scalar(1)});
}

// input_ids and attention_mask -> what the NPU's graphs take instead.
onnx::ModelProto inputs_graph(int visible) {
  WeightFile none("unused");
  OnnxGraph g("inputs", none);
  const std::string ids = g.integer_input("input_ids", {1, -1}, OnnxType::kS32);
  const std::string seen = g.integer_input("attention_mask", {1, visible}, OnnxType::kS32);
  const auto cast = [&](const std::string& x, const char* name, OnnxType to) {
    return g.op("Cast", name, {x}, {{"to", static_cast<int64_t>(to)}});
  };
  const std::string all = range(g, visible);
  // [s]: the column of each new token
  const std::string count =
      g.op("Gather", "count", {g.op("Shape", "shape", {ids}), g.integers({1})});
  const std::string first = g.op("Sub", "first", {g.integers({visible}), count});
  const std::string columns = g.op("Slice", "columns", {all, first, g.integers({visible})});
  // [s, L]: not behind its own column, and not hidden
  const std::string own = g.op("Unsqueeze", "own", {columns, g.integers({1})});
  const std::string before = g.op("LessOrEqual", "before", {all, own});
  const std::string shown = g.op("And", "shown", {before, cast(seen, "seen", OnnxType::kBool)});
  const std::string ones =
      g.op("Mul", "ones", {cast(shown, "number", OnnxType::kS32), number(g, 65535)});
  const std::string mask = g.op("Unsqueeze", "mask", {ones, g.integers({0})});
  g.rename(cast(mask, "npu_mask", OnnxType::kU16), "npu_mask");
  g.output("npu_mask", {1, -1, visible}, OnnxType::kU16);
  // How many are visible up to a column, less one.
  const std::string sums = g.op("CumSum", "sums", {seen, g.integers({1})});
  const std::string at = g.op("Gather", "at", {sums, columns}, {{"axis", int64_t{1}}});
  const std::string from_zero = g.op("Sub", "from_zero", {at, number(g, 1)});
  g.rename(g.op("Max", "positions", {from_zero, number(g, 0)}), "npu_positions");
  g.output("npu_positions", {1, -1}, OnnxType::kS32);
  return g.model();
}

// The runtime wants logits of every row and reads the last one: all get its values.
onnx::ModelProto head_graph(const Artifact& artifact) {
  WeightFile none("unused");
  OnnxGraph g("head", none);
  const Site& site = artifact.graph.site(artifact.graph.nodes.back().out);
  const OnnxTensor last = g.input("npu_logits", {1, 1, site.cols}, stored_as(site));
  const std::string positions = g.integer_input("npu_positions", {1, -1}, OnnxType::kS32);
  // [1, s, 1]
  const std::string shape =
      g.op("Concat", "all", {g.op("Shape", "shape", {positions}), g.integers({1})},
           {{"axis", int64_t{0}}});
  g.rename(g.op("Expand", "logits", {g.real(last), shape}), "logits");
  g.output("logits", {1, -1, site.cols}, OnnxType::kF32);
  return g.model();
}

// A stage of the pipeline; it runs on prompts, on single tokens, or on both.
json stage(const std::string& file, const json& inputs, const json& outputs, bool on_prompt,
           bool on_token) {
  return {{"filename", file},
          {"inputs", inputs},
          {"outputs", outputs},
          {"run_on_prompt", on_prompt},
          {"run_on_token_gen", on_token}};
}

// For %d the runtime puts the layer.
std::string percent(const std::string& pattern) { return fmt::format(fmt::runtime(pattern), "%d"); }

json npu_session(const OrtGenaiSettings& settings) {
  json options = {{"log_id", "onnxruntime-genai"}, {"intra_op_num_threads", 1}};
  options["session.disable_cpu_ep_fallback"] = "1";
  options["provider_options"] = {{{"QNN", settings.provider_options}}};
  return options;
}

// The NPU's stages for prompts or for single tokens, one for each part.
void add_npu_stages(json& stages, const std::string& name, const std::vector<NpuStage>& parts,
                    bool on_prompt, const OrtGenaiSettings& settings) {
  for (size_t i = 0; i < parts.size(); ++i) {
    json made = stage(parts[i].file, parts[i].inputs, parts[i].outputs, on_prompt, !on_prompt);
    made["session_options"] = npu_session(settings);
    stages.push_back({{parts.size() == 1 ? name : fmt::format("{}-{}", name, i + 1), made}});
  }
}

// Those, and the CPU's around them.
json pipeline(const OrtGenaiSettings& settings) {
  json stages = json::array();
  stages.push_back({{"embeddings", stage("inputs.onnx", {"input_ids", "attention_mask"},
                                         {"npu_mask", "npu_positions"}, true, true)}});
  add_npu_stages(stages, "prompt-processor", settings.prefill, true, settings);
  add_npu_stages(stages, "token-generator", settings.decode, false, settings);
  json head =
      stage("head.onnx", {"npu_logits", "npu_positions"}, json::array({"logits"}), true, true);
  head["is_lm_head"] = true;
  stages.push_back({{"head", head}});
  return stages;
}

}  // namespace

json ort_genai_config(const Artifact& artifact, const OrtGenaiSettings& settings) {
  const ModelConfig& c = artifact.graph.config;
  const DecoderNames names = ort_genai_names();
  const int visible = settings.context - artifact.graph.prefix_length();
  const json none = {{"log_id", "onnxruntime-genai"}, {"provider_options", json::array()}};
  const json decoder = {{"session_options", none},
                        {"head_size", c.head_dim},
                        {"hidden_size", c.hidden_size},
                        {"num_attention_heads", c.num_heads},
                        {"num_key_value_heads", c.num_kv_heads},
                        {"num_hidden_layers", c.num_layers},
                        {"sliding_window",
                         {{"window_size", settings.rows},
                          {"pad_value", 128},
                          {"alignment", "right"},
                          {"slide_key_value_cache", true}}},
                        {"inputs",
                         {{"input_ids", "input_ids"},
                          {"attention_mask", "attention_mask"},
                          {"past_key_names", percent(names.past_key)},
                          {"past_value_names", percent(names.past_value)}}},
                        {"outputs",
                         {{"logits", "logits"},
                          {"present_key_names", percent(names.new_key)},
                          {"present_value_names", percent(names.new_value)}}},
                        {"pipeline", pipeline(settings)}};
  json end = settings.end_tokens;
  if (settings.end_tokens.empty()) end = -1;
  return {{"model",
           {{"type", "decoder-pipeline"},
            {"bos_token_id", std::max(settings.bos_token, 0)},
            {"eos_token_id", end},
            {"pad_token_id", 0},
            {"context_length", visible},
            {"vocab_size", c.vocab_size},
            {"decoder", decoder}}},
          {"search",
           {{"max_length", visible},
            {"do_sample", false},
            {"past_present_share_buffer", false},
            {"num_beams", 1}}}};
}

void write_ort_genai_stages(const Artifact& artifact, int context,
                            const std::filesystem::path& folder) {
  write_model(inputs_graph(context - artifact.graph.prefix_length()), folder / "inputs.onnx");
  write_model(head_graph(artifact), folder / "head.onnx");
}

}  // namespace qnpu
