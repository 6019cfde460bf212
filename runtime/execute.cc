#include "runtime/execute.h"

#include <algorithm>

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

void silu_rows(const BoundNode& n, int begin, int64_t count, Isa isa) {
  if (n.wide) {
    table_s16(row<int16_t>(n.in0, begin, n.cols), n.table, count,
              row<int16_t>(n.out, begin, n.cols));
  } else {
    table_s8(row<int8_t>(n.in0, begin, n.cols), n.table, count, row<int8_t>(n.out, begin, n.cols),
             isa);
  }
}

// Operations that treat each row for itself.
void execute_rows(const BoundNode& n, const Step& step, Isa isa) {
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
    case Op::kAdd:
      add_s16(row<int16_t>(n.in0, begin, n.cols), row<int16_t>(n.in1, begin, n.cols), count, n.add,
              row<int16_t>(n.out, begin, n.cols));
      break;
    case Op::kMul:
      mul_rows(n, begin, count);
      break;
    case Op::kSilu:
      silu_rows(n, begin, count, isa);
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

// The part of a segment from row `first` on; without tokens if there is none.
Segment rest(Segment s, int first) {
  const int skip = std::clamp(first - s.row, 0, s.count);
  return {s.row + skip, s.count - skip, s.position + skip, s.sequence};
}

AttentionShape shape_of(const BoundGraph& graph, const Segment& s) {
  AttentionShape shape = graph.attention;
  shape.tokens = s.count;
  shape.position = s.position;
  return shape;
}

// One sequence's part of a cache.
template <typename T>
T* cache(const BoundGraph& graph, T* base, int sequence) {
  return base + sequence * graph.cache_stride;
}

void execute_rope(const BoundNode& n, const Segment& s, Isa isa) {
  rope_mul_s16(row<int16_t>(n.in0, s.row, n.cols), n.table, s.count, s.position, n.heads,
               n.cols / n.heads, n.mul, row<int16_t>(n.out, s.row, n.cols), isa);
}

void execute_append(const BoundGraph& graph, const BoundNode& n, const Segment& s) {
  (n.keys ? append_keys : append_values)(row<int8_t>(n.in0, s.row, n.cols), shape_of(graph, s),
                                         cache(graph, static_cast<int8_t*>(n.out), s.sequence));
}

// One of attention's steps, for a trace.
void execute_step(const BoundGraph& graph, const BoundNode& n, const Segment& s) {
  const AttentionShape shape = shape_of(graph, s);
  switch (n.op) {
    case Op::kScores:
      scores_s16s8_s16(row<int16_t>(n.in0, s.row, n.cols), static_cast<const int8_t*>(n.in1), shape,
                       n.requant, static_cast<int16_t*>(n.out), graph.trace_scratch, graph.isa);
      break;
    case Op::kMask:
      mask_s16(static_cast<const int16_t*>(n.in0), shape, n.add, n.zero_point,
               static_cast<int16_t*>(n.out));
      break;
    case Op::kSoftmax:
      softmax_s16_u16(static_cast<const int16_t*>(n.in0), shape, n.exp_high, n.exp_low,
                      static_cast<uint16_t*>(n.out), graph.trace_scratch, graph.isa);
      break;
    default:
      context_u16s8_s16(static_cast<const uint16_t*>(n.in0), static_cast<const int8_t*>(n.in1),
                        shape, n.requant, row<int16_t>(n.out, s.row, n.out_cols),
                        graph.trace_scratch, graph.isa);
  }
}

// Segments are handed on in groups, so that nothing has to be allocated for them.
void execute_attention(const BoundGraph& graph, const BoundNode& n, const Step& step) {
  constexpr size_t kGroup = 64;
  AttentionSegment group[kGroup];
  size_t count = 0;
  const auto flush = [&] {
    attention_s16s8_s16({group, count}, graph.attention, n.attention, graph.scratch, graph.isa);
    count = 0;
  };
  for (const Segment& whole : step.segments) {
    const Segment s = rest(whole, step.first);
    if (s.count == 0) continue;
    group[count++] = {s.count,
                      s.position,
                      row<int16_t>(n.q, s.row, n.out_cols),
                      cache(graph, static_cast<const int8_t*>(n.keys_in), s.sequence),
                      cache(graph, static_cast<const int8_t*>(n.in1), s.sequence),
                      row<int16_t>(n.out, s.row, n.out_cols)};
    if (count == kGroup) flush();
  }
  if (count > 0) flush();
}

template <typename Run>
void for_each_segment(const Step& step, const Run& run) {
  for (const Segment& whole : step.segments) {
    if (const Segment s = rest(whole, step.first); s.count > 0) run(s);
  }
}

void execute_node(const BoundGraph& graph, const BoundNode& n, const Step& step) {
  switch (n.op) {
    case Op::kLinear:
      return execute_linear(n, step, graph.scratch, graph.isa);
    case Op::kRopeMul:
      return for_each_segment(step, [&](const Segment& s) { execute_rope(n, s, graph.isa); });
    case Op::kAppend:
      return for_each_segment(step, [&](const Segment& s) { execute_append(graph, n, s); });
    case Op::kScores:
    case Op::kMask:
    case Op::kSoftmax:
    case Op::kContext:
      if (graph.trace_scratch != nullptr) {
        return for_each_segment(step, [&](const Segment& s) { execute_step(graph, n, s); });
      }
      if (n.op == Op::kContext) execute_attention(graph, n, step);
      return;
    default:
      return execute_rows(n, step, graph.isa);
  }
}

}  // namespace

void execute(const BoundGraph& graph, const Step& step, size_t begin, size_t end) noexcept {
  for (size_t i = begin; i < end; ++i) execute_node(graph, graph.nodes[i], step);
}

}  // namespace qnpu
