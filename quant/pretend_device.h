// A device that is not the CPU, for tests on machines that have no other. Its tensors lie in the
// CPU's memory, but at disguised addresses: a loop that reads them as if they were the CPU's ends
// the program. Operations refuse tensors of two devices, as a GPU's do; then the CPU computes them.
//
// To be included by one file of a test program.
#pragma once

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <utility>
#include <vector>

#include "quant/tensor.h"

namespace qnpu {

inline const torch::Device kPretendDevice(torch::kPrivateUse1, 0);

namespace pretend {

using torch::Tensor;

// No address of a program has this bit set without those above it.
inline void* disguised(const void* address) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) ^ (uintptr_t{1} << 62));
}

// A tensor of the device over the numbers of one of the CPU, and the other way round. Each keeps
// the one below it.
inline Tensor from_cpu(const Tensor& x) {
  const size_t bytes = at::detail::computeStorageNbytes(x.sizes(), x.strides(), x.itemsize());
  c10::DataPtr data(
      disguised(x.data_ptr()), new Tensor(x), [](void* kept) { delete static_cast<Tensor*>(kept); },
      kPretendDevice);
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, std::move(data),
                       /*allocator=*/nullptr, /*resizable=*/false);
  Tensor y = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), x.dtype());
  y.unsafeGetTensorImpl()->set_sizes_and_strides(x.sizes(), x.strides());
  return y;
}

inline Tensor to_cpu(const Tensor& x) {
  const auto options = torch::TensorOptions().dtype(x.scalar_type()).device(torch::kCPU);
  if (x.numel() == 0) return torch::empty(x.sizes(), options);
  return torch::from_blob(
      disguised(x.data_ptr()), x.sizes(), x.strides(), [x](void*) {}, options);
}

// What an operation that was given an empty tensor to write into made of it.
inline void become(const Tensor& empty, const Tensor& x) {
  empty.unsafeGetTensorImpl()->set_storage_keep_dtype(x.storage());
  empty.unsafeGetTensorImpl()->set_sizes_and_strides(x.sizes(), x.strides());
}

// The arguments and results of one operation.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& operation) : operation_(operation) {}

  void run(torch::jit::Stack* stack) {
    const auto first = stack->end() - operation_.schema().arguments().size();
    for (auto value = first; value != stack->end(); ++value) *value = argument(*value);
    operation_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    const auto result = stack->end() - operation_.schema().returns().size();
    for (auto value = result; value != stack->end(); ++value) *value = returned(*value);
  }

 private:
  c10::IValue argument(const c10::IValue& value) {
    if (value.isTensor()) return argument(value.toTensor());
    if (value.isDevice()) return torch::Device(torch::kCPU);
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& x : value.toTensorVector()) list.push_back(argument(x));
      return list;
    }
    if (value.isOptionalTensorList()) {
      auto all = value.toOptionalTensorVector();
      c10::List<std::decay_t<decltype(all.front())>> list;
      for (auto& x : all) {
        if (x) x = argument(*x);
        list.push_back(x);
      }
      return list;
    }
    return value;
  }

  Tensor argument(const Tensor& x) {
    if (!x.defined()) return x;
    if (x.is_cpu()) {  // a number may be, as on a GPU
      TORCH_CHECK(x.dim() == 0, "tensors of two devices meet in ", operation_.schema());
      return x;
    }
    arguments_.emplace_back(x, to_cpu(x));
    return arguments_.back().second;
  }

  c10::IValue returned(const c10::IValue& value) const {
    if (value.isTensor()) return returned(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<Tensor> list;
    for (const Tensor& x : value.toTensorVector()) list.push_back(returned(x));
    return list;
  }

  // Operations that write into an argument return it.
  Tensor returned(const Tensor& x) const {
    if (!x.defined()) return x;
    for (const auto& [original, on_cpu] : arguments_) {
      if (!on_cpu.is_same(x)) continue;
      if (original.sizes() != x.sizes()) become(original, from_cpu(x));
      return original;
    }
    return from_cpu(x);
  }

  const c10::OperatorHandle& operation_;
  std::vector<std::pair<Tensor, Tensor>> arguments_;  // of the device, and as the CPU sees them
};

inline void compute(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  Call(operation).run(stack);
}

// The one operation between devices.
inline Tensor copy(const Tensor& from, const Tensor& to, bool) {
  const Tensor source = from.is_cpu() ? from : to_cpu(from);
  (to.is_cpu() ? to : to_cpu(to)).copy_(source);
  return to;
}

C10_REGISTER_GUARD_IMPL(PrivateUse1, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1>);
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) { library.impl("_copy_from", &copy); }

}  // namespace pretend
}  // namespace qnpu
