// Which instruction set the kernels use: the best that this CPU has, or what the environment
// variable QNPU_ISA says (reference, avx2, avx512vnni, amxint8), for tests. All of them give the
// same bits.
#pragma once

namespace qnpu {

// Each has all of those before it.
enum class Isa { kReference, kAvx2, kAvx512Vnni, kAmxInt8 };

bool isa_supported(Isa isa);
const char* isa_name(Isa isa);
// First of the priority list that the CPU supports; QNPU_ISA overrides. Error on an unknown name or
// one that this CPU lacks.
Isa best_isa();

}  // namespace qnpu
