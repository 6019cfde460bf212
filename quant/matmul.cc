#include "quant/matmul.h"

#ifdef QNPU_ONEDNN  // by cmake/libtorch.cmake
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace qnpu {

#ifdef QNPU_ONEDNN
namespace {

bool has_fast_bf16() {
  static const bool fast = [] {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return (isa & needed) == needed;
  }();
  return fast;
}

// A matrix whose rows or columns are dense, as oneDNN wants them.
torch::Tensor dense_bf16(const torch::Tensor& x) {
  const torch::Tensor y = x.to(torch::kBFloat16);
  return y.stride(0) == 1 || y.stride(1) == 1 ? y : y.contiguous();
}

dnnl::memory memory_of(const torch::Tensor& x, dnnl::memory::data_type type,
                       const dnnl::engine& engine) {
  const dnnl::memory::desc desc({x.size(0), x.size(1)}, type, {x.stride(0), x.stride(1)});
  return {desc, engine, x.data_ptr()};
}

torch::Tensor onednn_product(const torch::Tensor& a, const torch::Tensor& b) {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  using Type = dnnl::memory::data_type;
  const torch::Tensor left = dense_bf16(a), right = dense_bf16(b);
  const torch::Tensor out = torch::empty({a.size(0), b.size(1)}, torch::kFloat32);
  const dnnl::memory x = memory_of(left, Type::bf16, engine);
  const dnnl::memory w = memory_of(right, Type::bf16, engine);
  const dnnl::memory y = memory_of(out, Type::f32, engine);
  const dnnl::matmul::desc desc(x.get_desc(), w.get_desc(), y.get_desc());
  dnnl::stream stream(engine);
  dnnl::matmul(dnnl::matmul::primitive_desc(desc, engine))
      .execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
  stream.wait();
  return out;
}

}  // namespace
#endif

torch::Tensor matmul_bf16(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::NoGradGuard no_grad;
  if (a.scalar_type() == torch::kFloat64) return torch::matmul(a, b).to(torch::kFloat32);
#ifdef QNPU_ONEDNN
  if (a.is_cpu() && has_fast_bf16()) return onednn_product(a, b);
#endif
  return torch::matmul(a.to(torch::kFloat32), b.to(torch::kFloat32));
}

}  // namespace qnpu
