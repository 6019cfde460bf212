#include "kernels/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/status.h"

namespace qnpu {
namespace {

// Best first.
constexpr Isa kPriority[] = {Isa::kAmxInt8, Isa::kAvx512Vnni, Isa::kAvx2, Isa::kReference};

bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

// Linux keeps the tiles' eight kilobytes from a process until it asks for them, once for all of its
// threads. It refuses where CPU, virtual machine or kernel do not have them.
bool request_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_amx_int8() {
  constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;  // CPUID 7.0, EDX
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512vnni() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kAmxTile) != 0 && (edx & kAmxInt8) != 0 && request_tiles();
}

}  // namespace

bool isa_supported(Isa isa) {
  static const bool amx_int8 = has_amx_int8();  // asked for once
  switch (isa) {
    case Isa::kAmxInt8:
      return amx_int8;
    case Isa::kAvx512Vnni:
      return has_avx512vnni();
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2");
    default:
      return true;
  }
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
      return "amxint8";
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
  fail("QNPU_ISA={} is not known; use reference, avx2, avx512vnni or amxint8", wish);
}

}  // namespace qnpu
