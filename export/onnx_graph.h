// One static QDQ graph in ONNX's own format (opset 21), as the NPU's compiler takes it: between two
// operations every tensor is stored in integers, and each float edge lies between exactly one
// DequantizeLinear and one QuantizeLinear (docs/export.md).
//
// libonnx 1.12 knows opset 17; the format has not changed since, so newer types and operators are
// numbers and names to it.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "export/encodings.h"
#include "export/stored.h"
#include "export/weight_file.h"

namespace qnpu {

using Shape = std::vector<int64_t>;  // -1: not known before the graph runs (never for the NPU)

// An integer tensor of the graph.
struct OnnxTensor {
  std::string name;
  Shape shape;
  Quantized quantized;
};

// kFloat is the same graph without any DequantizeLinear and QuantizeLinear, its constants
// dequantized, for tools that get the quantization parameters beside it.
enum class Form { kQdq, kFloat };

struct Attribute {
  const char* name;
  std::variant<int64_t, float, std::vector<int64_t>> value;
};

class OnnxGraph {
 public:
  // Constants of more than a few bytes go to `weights`, which graphs may share.
  OnnxGraph(const std::string& name, WeightFile& weights, Form form = Form::kQdq);

  Form form() const { return form_; }
  const std::vector<Encoding>& encodings() const { return encodings_; }  // of kFloat's tensors

  OnnxTensor input(const std::string& name, const Shape& shape, const Quantized& quantized);
  std::string integer_input(const std::string& name, const Shape& shape, OnnxType type);
  void output(const OnnxTensor& tensor);  // it may have readers in the graph too
  void output(const std::string& name, const Shape& shape, OnnxType type);

  // A constant in the graph itself if it is small, else in the weight file, where the same name is
  // the same constant; `data` must then live until the file is written.
  std::string constant(const std::string& name, OnnxType type, const Shape& shape,
                       std::span<const std::byte> data);
  std::string integers(const std::vector<int64_t>& values);  // shapes, axes, indices
  std::string scalar(float value);
  // A constant activation, unsigned as the NPU stores it.
  OnnxTensor table(const std::string& name, const Shape& shape, std::span<const std::byte> data,
                   const Quantized& quantized);

  // A node; returns the name of its only output, a float edge unless the operation says otherwise.
  std::string op(const std::string& type, const std::string& name,
                 const std::vector<std::string>& inputs,
                 const std::vector<Attribute>& attributes = {});
  // The float edge behind a tensor. One DequantizeLinear serves all readers.
  std::string real(const OnnxTensor& tensor);
  void rename(const std::string& edge, const std::string& name);  // of the node made last
  // The same of a constant with a scale for each row of its first axis, zero points 0.
  std::string real_weight(const std::string& name, OnnxType type, const Shape& shape,
                          std::span<const std::byte> data, std::span<const float> scales);
  // Of int4 [K, N] where `block` inputs of an output share a scale: a uint8 multiplier [K / block,
  // N] of the output's.
  std::string real_block_weight(const std::string& name, const Shape& shape,
                                std::span<const std::byte> nibbles,
                                std::span<const std::byte> multipliers, int64_t block,
                                std::span<const float> scales);
  // QuantizeLinear: the tensor that the NPU stores under `name`.
  OnnxTensor stored(const std::string& edge, const std::string& name, const Shape& shape,
                    const Quantized& quantized);

  // Operations that move numbers and keep their scale.
  OnnxTensor reshape(const OnnxTensor& x, const std::string& name, const Shape& shape);
  OnnxTensor transpose(const OnnxTensor& x, const std::string& name,
                       const std::vector<int64_t>& order);
  OnnxTensor slice(const OnnxTensor& x, const std::string& name, int axis, int64_t begin,
                   int64_t end);
  OnnxTensor concat(const std::vector<OnnxTensor>& parts, const std::string& name, int axis);

  const onnx::ModelProto& model() const { return model_; }

 private:
  // A real constant; `make` its values, which the weight file asks for once.
  template <typename Make>
  std::string dequantized(const std::string& name, const Shape& shape, Make make);
  onnx::TensorProto& initializer(const std::string& name, OnnxType type, const Shape& shape);
  OnnxTensor named(const std::string& edge, const std::string& name, const Shape& shape,
                   const Quantized& quantized);
  std::string zero_point(OnnxType type, int32_t value);
  std::string zeros(OnnxType type, const Shape& shape);
  bool has(const std::string& name) { return !known_.insert(name).second; }

  onnx::ModelProto model_;
  onnx::GraphProto& graph_;
  WeightFile& weights_;
  Form form_;
  std::vector<Encoding> encodings_;
  std::set<std::string> known_;  // initializers and dequantized edges
};

// Error: more than protobuf's own limit of 2 GB (weights lie outside), disk full.
void write_model(const onnx::ModelProto& model, const std::filesystem::path& path);

}  // namespace qnpu
