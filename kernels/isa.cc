#include "kernels/isa.h"

#include <cstdlib>
#include <string_view>

#include "base/status.h"

namespace qnpu {
namespace {

// Best first.
constexpr Isa kPriority[] = {Isa::kAvx512Vnni, Isa::kAvx2, Isa::kReference};

}  // namespace

bool isa_supported(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vnni:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2");
    default:
      return true;
  }
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "reference";
  }
}

Isa best_isa() {
  const char* wish = std::getenv("QNPU_ISA");
  for (Isa isa : kPriority) {
    if (wish != nullptr && std::string_view(wish) != isa_name(isa)) continue;
    if (isa_supported(isa)) return isa;
    if (wish != nullptr) fail("QNPU_ISA={}: this CPU lacks that instruction set", wish);
  }
  fail("QNPU_ISA={} is not known; use reference, avx2 or avx512vnni", wish);
}

}  // namespace qnpu
