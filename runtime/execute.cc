#include "runtime/execute.h"

#include "kernels/elementwise/elementwise.h"

namespace qnpu {
namespace {

template <typename T>
const T* row(const void* buffer, int index, int cols) {
  return static_cast<const T*>(buffer) + int64_t{index} * cols;
}
template <typename T>
T* row(void* buffer, int index, int cols) {
  return static_cast<T*>(buffer) + int64_t{index} * cols;
}

void convert_rows(const BoundNode& n, int begin, int64_t count) {
  if (n.wide) {
    widen_s8_s16(row<int8_t>(n.in0, begin, n.cols), count, row<int16_t>(n.out, begin, n.cols));
  } else {
    const auto narrow = n.four ? narrow_s16_s4 : narrow_s16_s8;
    narrow(row<int16_t>(n.in0, begin, n.cols), count, row<int8_t>(n.out, begin, n.cols));
  }
}

void mul_rows(const BoundNode& n, int begin, int64_t count) {
  if (n.wide) {
    mul_s16(row<int16_t>(n.in0, begin, n.cols), n.zero_point, row<int16_t>(n.in1, begin, n.cols),
            count, n.mul, row<int16_t>(n.out, begin, n.cols));
  } else {
    mul_s8(row<int8_t>(n.in0, begin, n.cols), n.zero_point, row<int8_t>(n.in1, begin, n.cols),
           count, n.mul, row<int8_t>(n.out, begin, n.cols));
  }
}

void silu_rows(const BoundNode& n, int begin, int64_t count) {
  if (n.wide) {
    table_s16(row<int16_t>(n.in0, begin, n.cols), n.table, count,
              row<int16_t>(n.out, begin, n.cols));
  } else {
    table_s8(row<int8_t>(n.in0, begin, n.cols), n.table, count, row<int8_t>(n.out, begin, n.cols));
  }
}

// Operations that treat each row for itself.
void execute_rows(const BoundNode& n, const Step& step) {
  const int begin = step.first;
  const int rows = step.count - begin;
  const int64_t count = int64_t{rows} * n.cols;
  switch (n.op) {
    case Op::kEmbedding:
      embedding_s16(step.tokens + begin, rows, n.table, n.cols, row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kRmsNorm:
      rmsnorm_s16(row<int16_t>(n.in0, begin, n.cols), n.table, rows * n.heads, n.cols / n.heads,
                  n.norm, row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kConvert:
      convert_rows(n, begin, count);
      break;
    case Op::kRotateHalf:
      rotate_half_s16(row<int16_t>(n.in0, begin, n.cols), rows, n.heads, n.cols / n.heads,
                      row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kRopeMul:
      rope_mul_s16(row<int16_t>(n.in0, begin, n.cols), n.table, rows, step.position + begin,
                   n.heads, n.cols / n.heads, n.mul, row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kAdd:
      add_s16(row<int16_t>(n.in0, begin, n.cols), row<int16_t>(n.in1, begin, n.cols), count, n.add,
              row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kMul:
      mul_rows(n, begin, count);
      break;
    case Op::kSilu:
      silu_rows(n, begin, count);
      break;
    default:
      break;
  }
}

void execute_linear(const BoundNode& n, const Step& step, void* scratch, Isa isa) {
  const int rows = step.count - step.first;
  if (n.wide) {
    linear_s16(row<int16_t>(n.in0, step.first, n.cols), rows, n.linear,
               row<int16_t>(n.out, step.first, n.out_cols), scratch, isa);
  } else {
    linear_s8(row<int8_t>(n.in0, step.first, n.cols), rows, n.linear,
              row<int8_t>(n.out, step.first, n.out_cols), scratch, isa);
  }
}

void execute_append(const BoundNode& n, const Step& step, const AttentionShape& shape) {
  const auto* rows = row<int8_t>(n.in0, step.first, n.cols);
  if (n.keys) {
    append_keys(rows, shape, static_cast<int8_t*>(n.out));
  } else {
    append_values(rows, shape, static_cast<int8_t*>(n.out));
  }
}

void execute_node(const BoundGraph& graph, const BoundNode& n, const Step& step) {
  AttentionShape shape = graph.attention;
  shape.tokens = step.count - step.first;
  shape.position = step.position + step.first;
  switch (n.op) {
    case Op::kLinear:
      execute_linear(n, step, graph.scratch, graph.isa);
      break;
    case Op::kAppend:
      execute_append(n, step, shape);
      break;
    case Op::kScores:
      scores_s16s8_s16(row<int16_t>(n.in0, step.first, n.cols), static_cast<const int8_t*>(n.in1),
                       shape, n.requant, static_cast<int16_t*>(n.out), graph.scratch, graph.isa);
      break;
    case Op::kMask:
      mask_s16(static_cast<const int16_t*>(n.in0), shape, n.add, n.zero_point,
               static_cast<int16_t*>(n.out));
      break;
    case Op::kSoftmax:
      softmax_s16_u16(static_cast<const int16_t*>(n.in0), shape, n.exp_high, n.exp_low,
                      static_cast<uint16_t*>(n.out), graph.scratch, graph.isa);
      break;
    case Op::kContext:
      context_u16s8_s16(static_cast<const uint16_t*>(n.in0), static_cast<const int8_t*>(n.in1),
                        shape, n.requant, row<int16_t>(n.out, step.first, n.out_cols),
                        graph.scratch, graph.isa);
      break;
    default:
      execute_rows(n, step);
  }
}

}  // namespace

void execute(const BoundGraph& graph, const Step& step, size_t begin, size_t end) noexcept {
  for (size_t i = begin; i < end; ++i) execute_node(graph, graph.nodes[i], step);
}

}  // namespace qnpu
