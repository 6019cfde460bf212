// How this process uses memory: what glibc keeps of it, and how much it was at most.
#pragma once

#include <cstdint>

namespace qnpu {

// Values of a layer are made and freed over and over. By default glibc takes each large one fresh
// from the system and gives it back, and the page faults cost as much as the arithmetic. Once, at
// the beginning of long work.
void keep_freed_memory();

// Folding and sampling leave holes of hundreds of megabytes in the heap, which glibc keeps
// resident.
void return_free_memory();

int64_t peak_resident_bytes();  // of this process so far; 0 where the system does not say

}  // namespace qnpu
