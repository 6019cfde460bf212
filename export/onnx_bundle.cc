#include "export/onnx_bundle.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/files.h"

namespace qnpu {
namespace {

using nlohmann::json;

json values_to_json(const google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& values) {
  json list = json::array();
  for (const onnx::ValueInfoProto& value : values) {
    json shape = json::array();
    const onnx::TypeProto::Tensor& type = value.type().tensor_type();
    for (const auto& dim : type.shape().dim()) shape.push_back(dim.dim_value());
    list.push_back({{"name", value.name()}, {"type", type.elem_type()}, {"shape", shape}});
  }
  return list;
}

json write_part(const Artifact& artifact, const DecoderOptions& options, const std::string& name,
                WeightFile& weights, const std::filesystem::path& folder) {
  const DecoderModel decoder = make_decoder(artifact, options, weights);
  const std::string file = name + ".onnx";
  write_model(decoder.model, folder / file);
  json sites = json::object();
  for (const auto& [site, place] : decoder.sites) {
    sites[site] = {{"tensor", place.tensor}, {"shape", place.shape}};
  }
  return {{"name", name},
          {"file", file},
          {"nodes", decoder.model.graph().node_size()},
          {"inputs", values_to_json(decoder.model.graph().input())},
          {"outputs", values_to_json(decoder.model.graph().output())},
          {"sites", sites}};
}

json write_graph(const Artifact& artifact, DecoderOptions options, const std::string& name,
                 WeightFile& weights, const std::filesystem::path& folder) {
  json parts = json::array();
  for (int i = 0; i < options.part.count; ++i) {
    options.part.index = i;
    parts.push_back(write_part(artifact, options, part_name(name, options.part), weights, folder));
  }
  return {{"rows", options.rows}, {"parts", parts}};
}

json write_float_part(const Artifact& artifact, const DecoderOptions& options,
                      const std::string& name, WeightFile& weights,
                      const std::filesystem::path& folder) {
  const DecoderModel decoder = make_decoder(artifact, options, weights);
  const std::string file = name + ".onnx";
  write_model(decoder.model, folder / file);
  json encodings = json::array();
  for (const char* version : {"0.6.1", "1.0.0", "2.0.0"}) {
    encodings.push_back(fmt::format("{}.{}.encodings", name, version));
    write_json(folder / encodings.back().get<std::string>(),
               encodings_to_json(decoder.encodings, version));
  }
  return {{"name", name},
          {"file", file},
          {"nodes", decoder.model.graph().node_size()},
          {"encodings", encodings}};
}

// For whoever feeds cos and sin: the rows by position.
void write_rope_tables(const Artifact& artifact, const std::filesystem::path& path) {
  std::vector<TensorToWrite> tables;
  for (const char* name : {"cos", "sin"}) {
    const TensorView& table = artifact.tensors.at(std::string("rope.") + name);
    tables.push_back({name, table.dtype, table.shape, {table.data, table.bytes}});
  }
  write_safetensors(path, tables);
}

}  // namespace

json write_onnx(const Artifact& artifact, const DecoderOptions& options,
                const std::filesystem::path& folder) {
  check_deployable(artifact);
  const ModelConfig& config = artifact.graph.config;
  WeightFile weights("weights.bin");
  DecoderOptions decode = options;
  decode.rows = 1;
  json result = {{"format", "quantnpu-onnx"},
                 {"version", 2},
                 {"context", options.context},
                 {"prefix", artifact.graph.prefix_length()},
                 {"layers", config.num_layers},
                 {"kv_heads", config.num_kv_heads},
                 {"head_dim", config.head_dim},
                 {"vocab_size", config.vocab_size},
                 {"names",
                  {{"past_key", options.names.past_key},
                   {"past_value", options.names.past_value},
                   {"new_key", options.names.new_key},
                   {"new_value", options.names.new_value}}},
                 {"graphs",
                  {{"prefill", write_graph(artifact, options, "prefill", weights, folder)},
                   {"decode", write_graph(artifact, decode, "decode", weights, folder)}}}};
  weights.write(folder);
  write_rope_tables(artifact, folder / "rope.safetensors");
  result["weight_bytes"] = weights.bytes();
  write_json(folder / "export.json", result);
  return result;
}

json write_float_with_encodings(const Artifact& artifact, const DecoderOptions& options,
                                const std::filesystem::path& folder) {
  check_deployable(artifact);
  WeightFile weights("weights.bin");
  DecoderOptions mine = options;
  mine.form = Form::kFloat;
  json graphs = json::object();
  for (const std::string graph : {"prefill", "decode"}) {
    if (graph == "decode") mine.rows = 1;
    json parts = json::array();
    for (int i = 0; i < mine.part.count; ++i) {
      mine.part.index = i;
      parts.push_back(
          write_float_part(artifact, mine, part_name(graph, mine.part), weights, folder));
    }
    graphs[graph] = {{"rows", mine.rows}, {"parts", parts}};
  }
  weights.write(folder);
  return {{"graphs", graphs}, {"weight_bytes", weights.bytes()}};
}

}  // namespace qnpu
