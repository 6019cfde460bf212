// Attention over the int8 KV cache, for T new tokens at positions [position, position + T). Token t
// sees positions 0 .. position + t; nothing else is read or computed. Query head h uses KV head
// h / (heads / kv_heads).
//
// attention_s16s8_s16 is the whole of it, tile by tile, without a matrix of scores in memory. The
// four steps it is made of are functions too, for whoever wants to see the numbers between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/law.h"
#include "kernels/isa.h"

namespace qnpu {

struct AttentionShape {
  int tokens = 0;    // T
  int position = 0;  // tokens already in the cache
  int context = 0;   // capacity C of the cache, and row stride of scores
  int heads = 0, kv_heads = 0, head_dim = 0;
  // Whether the caches are panels (kernels/matmul/panels.h): of each KV head the keys are a matrix
  // of C rows, the values one of hd rows. C is a multiple of 32 then. Else they are
  // [C, KV * hd] and [KV * hd, C], as the steps of attention one by one read them.
  bool panels = false;
};

// Where dimension d of KV head g at position c lies in a cache, and the caches' sizes.
int64_t key_offset(const AttentionShape& shape, int64_t g, int64_t c, int64_t d);
int64_t value_offset(const AttentionShape& shape, int64_t g, int64_t c, int64_t d);
size_t key_cache_bytes(const AttentionShape& shape);
size_t value_cache_bytes(const AttentionShape& shape);

size_t attention_scratch_bytes(const AttentionShape& shape);

// New rows [T, KV * hd] into a cache.
void append_keys(const int8_t* rows, const AttentionShape& shape, int8_t* k_cache);
void append_values(const int8_t* rows, const AttentionShape& shape, int8_t* v_cache);
// The first `positions` of one cache into another.
void copy_keys(const int8_t* from, const AttentionShape& shape, int positions, int8_t* to);
void copy_values(const int8_t* from, const AttentionShape& shape, int positions, int8_t* to);

// q [T, H * hd] times keys -> scores [H, T, C]. Law: requantize16.
void scores_s16s8_s16(const int16_t* q, const int8_t* k_cache, const AttentionShape& shape,
                      Requant law, int16_t* scores, void* scratch, Isa isa);

// scores + 0 into the masked sum's scale (law: add16), zero point added, saturated.
void mask_s16(const int16_t* scores, const AttentionShape& shape, AddLaw law,
              int32_t out_zero_point, int16_t* masked);

// Softmax of each row's visible part -> probabilities u16 in steps of 1/65535. Tables: [256] each.
void softmax_s16_u16(const int16_t* masked, const AttentionShape& shape, const uint32_t* exp_high,
                     const uint32_t* exp_low, uint16_t* probabilities, void* scratch, Isa isa);

// probabilities [H, T, C] times values -> out [T, H * hd]. Law: requantize16.
void context_u16s8_s16(const uint16_t* probabilities, const int8_t* v_cache,
                       const AttentionShape& shape, Requant law, int16_t* out, void* scratch,
                       Isa isa);

// The laws of the four steps.
struct AttentionLaw {
  Requant scores;
  AddLaw mask;
  int32_t mask_zero_point = 0;
  const uint32_t* exp_high = nullptr;  // [256]
  const uint32_t* exp_low = nullptr;   // [256]
  Requant context;
};

// New tokens of one sequence; their keys and values are in its caches already.
struct AttentionSegment {
  int tokens = 0;
  int position = 0;
  const int16_t* q = nullptr;  // [T, H * hd]
  const int8_t* k_cache = nullptr;
  const int8_t* v_cache = nullptr;
  int16_t* out = nullptr;  // [T, H * hd]
};

// Of `shape`, tokens and position do not matter. Scratch is for max_threads() as of then.
size_t attention_tiles_scratch_bytes(const AttentionShape& shape);

// For each segment what scores, mask, softmax and context give one after the other.
void attention_s16s8_s16(std::span<const AttentionSegment> segments, const AttentionShape& shape,
                         const AttentionLaw& law, void* scratch, Isa isa);

}  // namespace qnpu
