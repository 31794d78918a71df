// Register tiles of products of bf16 in pairs: two numbers are multiplied with two others and added up in f32, by one
// instruction where the processor has it (AVX-512 BF16). Used by attention.cc only.
#pragma once

#include "cpu/kernels/attention_rows.h"
#include "cpu/kernels/matmul_micro.h"

namespace bp::cpu {

// `direct` of a MicroTable, and its sizes: TileProduct's a and b are pairs, 32 bits each, of which all strides count; c
// is f32, with no epilogue but `accumulate`.
const MicroTable& pair_products();

// Those of AVX-512 BF16; null where the processor, or BP_MAX_ISA, has none.
const MicroTable* native_pair_products();

// Replaces conversions to bf16 by those instructions where there are such.
void take_native_conversions(AttentionBf16& table);

}  // namespace bp::cpu
