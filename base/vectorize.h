// For functions that are plain loops: the compiler makes one version per instruction
// set and the loader picks the best that the CPU has. All versions of integer
// arithmetic give the same bits; sums of floats differ in their last ones.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define QNPU_VECTORIZE [[gnu::target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")]]
#else
#define QNPU_VECTORIZE
#endif
