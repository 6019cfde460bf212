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

// The files' names.
json write_encodings(const std::vector<Encoding>& encodings, const std::string& name,
                     const std::filesystem::path& folder) {
  json files = json::array();
  for (const char* version : {"0.6.1", "1.0.0", "2.0.0"}) {
    const std::string file = fmt::format("{}.{}.encodings", name, version);
    write_json(folder / file, encodings_to_json(encodings, version));
    files.push_back(file);
  }
  return files;
}

// Writes the model of one part; what export.json says of any.
json write_graph_file(const DecoderModel& decoder, const std::string& name,
                      const std::filesystem::path& folder) {
  const std::string file = name + ".onnx";
  write_model(decoder.model, folder / file);
  return {{"name", name}, {"file", file}, {"nodes", decoder.model.graph().node_size()}};
}

json write_part(const Artifact& artifact, const DecoderOptions& options, const std::string& name,
                WeightFile& weights, const std::filesystem::path& folder) {
  const DecoderModel decoder = make_decoder(artifact, options, weights);
  json part = write_graph_file(decoder, name, folder);
  if (options.form == Form::kFloat) {
    part["encodings"] = write_encodings(decoder.encodings, name, folder);
    return part;
  }
  json sites = json::object();
  for (const auto& [site, place] : decoder.sites) {
    sites[site] = {{"tensor", place.tensor}, {"shape", place.shape}};
  }
  part["inputs"] = values_to_json(decoder.model.graph().input());
  part["outputs"] = values_to_json(decoder.model.graph().output());
  part["sites"] = sites;
  return part;
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

// `graphs` of export.json: the prefill graph, and that of one row.
json write_graphs(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights,
                  const std::filesystem::path& folder) {
  DecoderOptions decode = options;
  decode.rows = 1;
  return {{"prefill", write_graph(artifact, options, "prefill", weights, folder)},
          {"decode", write_graph(artifact, decode, "decode", weights, folder)}};
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
                 {"graphs", write_graphs(artifact, options, weights, folder)}};
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
  const json graphs = write_graphs(artifact, mine, weights, folder);
  weights.write(folder);
  return {{"graphs", graphs}, {"weight_bytes", weights.bytes()}};
}

}  // namespace qnpu
