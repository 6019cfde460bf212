#include "export/onnx_graph.h"

#include <fmt/ranges.h>

#include <bit>
#include <cstring>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

constexpr int kIrVersion = 10, kOpset = 21;
constexpr size_t kMostModelBytes = size_t{2} << 30;
constexpr size_t kMostInGraph = 256;  // bytes of a constant; larger ones go to the weight file

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Encoding encoding_of(const std::string& name, const Quantized& q) {
  return {name, q.type == OnnxType::kU8 ? 8 : 16, false, q.zero_point, {q.scale}};
}

void set_attribute(onnx::NodeProto& node, const Attribute& attribute) {
  onnx::AttributeProto& proto = *node.add_attribute();
  proto.set_name(attribute.name);
  if (const auto* i = std::get_if<int64_t>(&attribute.value)) {
    proto.set_type(onnx::AttributeProto::INT);
    proto.set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute.value)) {
    proto.set_type(onnx::AttributeProto::FLOAT);
    proto.set_f(*f);
  } else {
    proto.set_type(onnx::AttributeProto::INTS);
    for (const int64_t value : std::get<std::vector<int64_t>>(attribute.value)) {
      proto.add_ints(value);
    }
  }
}

void set_type(onnx::ValueInfoProto& info, const std::string& name, const Shape& shape,
              OnnxType type) {
  info.set_name(name);
  onnx::TypeProto::Tensor& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(static_cast<int>(type));
  for (const int64_t size : shape) {
    auto* dim = tensor.mutable_shape()->add_dim();
    size < 0 ? dim->set_dim_param("tokens") : dim->set_dim_value(size);
  }
}

void set_external(onnx::TensorProto& tensor, const std::string& file, WeightFile::Place place) {
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto entry = [&](const char* key, const std::string& value) {
    onnx::StringStringEntryProto& added = *tensor.add_external_data();
    added.set_key(key);
    added.set_value(value);
  };
  entry("location", file);
  entry("offset", std::to_string(place.offset));
  entry("length", std::to_string(place.bytes));
}

}  // namespace

OnnxGraph::OnnxGraph(const std::string& name, WeightFile& weights, Form form)
    : graph_(*model_.mutable_graph()), weights_(weights), form_(form) {
  model_.set_ir_version(kIrVersion);
  model_.set_producer_name("quantnpu");
  onnx::OperatorSetIdProto& opset = *model_.add_opset_import();
  opset.set_domain("");
  opset.set_version(kOpset);
  graph_.set_name(name);
}

OnnxTensor OnnxGraph::input(const std::string& name, const Shape& shape,
                            const Quantized& quantized) {
  const bool real = form_ == Form::kFloat;
  integer_input(name, shape, real ? OnnxType::kF32 : quantized.type);
  if (real) encodings_.push_back(encoding_of(name, quantized));
  return {name, shape, quantized};
}

std::string OnnxGraph::integer_input(const std::string& name, const Shape& shape, OnnxType type) {
  set_type(*graph_.add_input(), name, shape, type);
  return name;
}

void OnnxGraph::output(const OnnxTensor& tensor) {
  output(tensor.name, tensor.shape, form_ == Form::kFloat ? OnnxType::kF32 : tensor.quantized.type);
}

void OnnxGraph::output(const std::string& name, const Shape& shape, OnnxType type) {
  set_type(*graph_.add_output(), name, shape, type);
}

onnx::TensorProto& OnnxGraph::initializer(const std::string& name, OnnxType type,
                                          const Shape& shape) {
  onnx::TensorProto& tensor = *graph_.add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(static_cast<int>(type));
  for (const int64_t size : shape) tensor.add_dims(size);
  return tensor;
}

std::string OnnxGraph::constant(const std::string& name, OnnxType type, const Shape& shape,
                                std::span<const std::byte> data) {
  if (has(name)) return name;
  onnx::TensorProto& tensor = initializer(name, type, shape);
  if (data.size() > kMostInGraph) {
    set_external(tensor, weights_.file_name(), weights_.add(name, data));
  } else {
    tensor.set_raw_data(data.data(), data.size());
  }
  return name;
}

std::string OnnxGraph::integers(const std::vector<int64_t>& values) {
  const std::string name = fmt::format("int64.{}", fmt::join(values, "_"));
  return constant(name, OnnxType::kS64, {std::ssize(values)}, std::as_bytes(std::span(values)));
}

std::string OnnxGraph::scalar(float value) {
  return constant(fmt::format("scale.{:08x}", std::bit_cast<uint32_t>(value)), OnnxType::kF32, {},
                  bytes_of(value));
}

std::string OnnxGraph::zero_point(OnnxType type, int32_t value) {
  const std::string name = fmt::format("zero_point.{}.{}", static_cast<int>(type), value);
  const bool narrow = type == OnnxType::kU8 || type == OnnxType::kS8;  // little-endian
  return constant(name, type, {}, bytes_of(value).first(narrow ? 1 : 2));
}

std::string OnnxGraph::op(const std::string& type, const std::string& name,
                          const std::vector<std::string>& inputs,
                          const std::vector<Attribute>& attributes) {
  onnx::NodeProto& node = *graph_.add_node();
  node.set_op_type(type);
  node.set_name(name);
  for (const std::string& input : inputs) node.add_input(input);
  for (const Attribute& attribute : attributes) set_attribute(node, attribute);
  node.add_output(name + "/real");
  return node.output(0);
}

void OnnxGraph::rename(const std::string& edge, const std::string& name) {
  onnx::NodeProto& last = *graph_.mutable_node(graph_.node_size() - 1);
  if (last.output(0) == edge) last.set_output(0, name);
}

template <typename Make>
std::string OnnxGraph::dequantized(const std::string& name, const Shape& shape, Make make) {
  if (has(name)) return name;
  const std::string real = name + ".real";  // the weight file's name
  if (!weights_.contains(real)) {
    const std::vector<float> values = make();
    const auto bytes = std::as_bytes(std::span(values));
    weights_.add(real, std::vector<std::byte>(bytes.begin(), bytes.end()));
  }
  set_external(initializer(name, OnnxType::kF32, shape), weights_.file_name(),
               weights_.add(real, weights_.view(real)));
  return name;
}

OnnxTensor OnnxGraph::table(const std::string& name, const Shape& shape,
                            std::span<const std::byte> data, const Quantized& q) {
  if (form_ == Form::kQdq) return {constant(name, q.type, shape, data), shape, q};
  if (!known_.contains(name)) encodings_.push_back(encoding_of(name, q));
  return {dequantized(name, shape, [&] { return to_reals(data, q); }), shape, q};
}

std::string OnnxGraph::real(const OnnxTensor& tensor) {
  if (form_ == Form::kFloat) return tensor.name;
  const std::string name = tensor.name + "/dequantize";
  if (has(name)) return name + "/real";
  const Quantized& q = tensor.quantized;
  return op("DequantizeLinear", name,
            {tensor.name, scalar(q.scale), zero_point(q.type, q.zero_point)});
}

std::string OnnxGraph::real_weight(const std::string& name, OnnxType type, const Shape& shape,
                                   std::span<const std::byte> data, std::span<const float> scales) {
  if (form_ == Form::kFloat) {
    if (!known_.contains(name) && type != OnnxType::kS32) {
      encodings_.push_back(
          {name, type == OnnxType::kS4 ? 4 : 8, true, 0, {scales.begin(), scales.end()}});
    }
    return dequantized(name, shape, [&] { return rows_to_reals(type, data, scales); });
  }
  const std::string edge = name + "/dequantize";
  if (has(edge)) return edge + "/real";
  const auto rows = std::ssize(scales);
  const std::string integers = constant(name, type, shape, data);
  const std::string scale =
      constant(name + ".scale", OnnxType::kF32, {rows}, std::as_bytes(scales));
  std::vector<std::string> inputs = {integers, scale};
  if (type != OnnxType::kS32) inputs.push_back(zeros(type, {rows}));
  return op("DequantizeLinear", edge, inputs, {{"axis", int64_t{0}}});
}

std::string OnnxGraph::real_block_weight(const std::string& name, const Shape& shape,
                                         std::span<const std::byte> nibbles,
                                         std::span<const std::byte> multipliers, int64_t block,
                                         std::span<const float> scales) {
  const std::string edge = name + "/dequantize";
  if (has(edge)) return edge + "/real";
  const Shape blocks = {shape[0] / block, shape[1]};
  const std::string channel =
      constant(name + ".scale", OnnxType::kF32, {shape[1]}, std::as_bytes(scales));
  const std::string multiplier =
      constant(name + ".block_scale", OnnxType::kU8, blocks, multipliers);
  const std::string scale =
      op("DequantizeLinear", name + ".block_scale/dequantize",
         {multiplier, channel, zeros(OnnxType::kU8, {shape[1]})}, {{"axis", int64_t{1}}});
  return op("DequantizeLinear", edge,
            {constant(name, OnnxType::kS4, shape, nibbles), scale, zeros(OnnxType::kS4, blocks)},
            {{"axis", int64_t{0}}, {"block_size", block}});
}

std::string OnnxGraph::zeros(OnnxType type, const Shape& shape) {
  const std::string name =
      fmt::format("zeros.{}.{}", static_cast<int>(type), fmt::join(shape, "_"));
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  const int64_t bytes = type == OnnxType::kS4 ? (count + 1) / 2 : count;
  if (!weights_.contains(name)) {
    weights_.add(name, std::vector<std::byte>(static_cast<size_t>(bytes)));
  }
  return constant(name, type, shape, weights_.view(name));
}

OnnxTensor OnnxGraph::stored(const std::string& edge, const std::string& name, const Shape& shape,
                             const Quantized& quantized) {
  if (form_ == Form::kFloat) return named(edge, name, shape, quantized);
  onnx::NodeProto& node = *graph_.add_node();
  node.set_op_type("QuantizeLinear");
  node.set_name(name + "/quantize");
  node.add_input(edge);
  node.add_input(scalar(quantized.scale));
  node.add_input(zero_point(quantized.type, quantized.zero_point));
  node.add_output(name);
  return {name, shape, quantized};
}

// The tensor `edge` under the name of its site. A change of width is a product with 1: AIMET gives
// parameters to the outputs of operations only, and Identity is none to it.
OnnxTensor OnnxGraph::named(const std::string& edge, const std::string& name, const Shape& shape,
                            const Quantized& quantized) {
  if (edge.ends_with("/real")) {
    rename(edge, name);
  } else {
    rename(op("Mul", name + "/convert", {edge, scalar(1.0f)}), name);
  }
  encodings_.push_back(encoding_of(name, quantized));
  return {name, shape, quantized};
}

OnnxTensor OnnxGraph::reshape(const OnnxTensor& x, const std::string& name, const Shape& shape) {
  const std::string edge = op("Reshape", name + "/reshape", {real(x), integers(shape)});
  return stored(edge, name, shape, x.quantized);
}

OnnxTensor OnnxGraph::transpose(const OnnxTensor& x, const std::string& name,
                                const std::vector<int64_t>& order) {
  Shape shape;
  for (const int64_t axis : order) shape.push_back(x.shape[static_cast<size_t>(axis)]);
  const std::string edge = op("Transpose", name + "/transpose", {real(x)}, {{"perm", order}});
  return stored(edge, name, shape, x.quantized);
}

OnnxTensor OnnxGraph::slice(const OnnxTensor& x, const std::string& name, int axis, int64_t begin,
                            int64_t end) {
  Shape shape = x.shape;
  shape[static_cast<size_t>(axis)] = end - begin;
  const std::string edge =
      op("Slice", name + "/slice", {real(x), integers({begin}), integers({end}), integers({axis})});
  return stored(edge, name, shape, x.quantized);
}

OnnxTensor OnnxGraph::concat(const std::vector<OnnxTensor>& parts, const std::string& name,
                             int axis) {
  Shape shape = parts.front().shape;
  int64_t& size = shape[static_cast<size_t>(axis)] = 0;
  std::vector<std::string> edges;
  for (const OnnxTensor& part : parts) {
    size += part.shape[static_cast<size_t>(axis)];
    edges.push_back(real(part));
  }
  const std::string edge = op("Concat", name + "/concat", edges, {{"axis", int64_t{axis}}});
  return stored(edge, name, shape, parts.front().quantized);
}

void write_model(const onnx::ModelProto& model, const std::filesystem::path& path) {
  if (model.ByteSizeLong() > kMostModelBytes) {
    fail("{} would be larger than the 2 GB of a protobuf message; export fewer layers at a time",
         path.string());
  }
  write_file(path, model.SerializeAsString());
}

}  // namespace qnpu
