// Prompt look-up: what followed the last time the same tokens stood together is proposed as what
// follows now. The model checks all proposals in one walk; the law of its integers does not depend
// on how a sequence is cut, so what is accepted is exactly what one token at a time would give.
#pragma once

#include <cstdint>
#include <span>

namespace qnpu {

// The tokens of `history` behind the latest earlier occurrence of its last `n` tokens, for the
// largest n from 4 down to 2 that has one; at most `count` of them, a view of `history`. Empty:
// none.
std::span<const int32_t> propose(std::span<const int32_t> history, int count);

}  // namespace qnpu
