// Finding where a NaN or an infinity begins. Used by compile's diagnose().
#pragma once

#include <span>
#include <string>

#include "ir/graph.h"

namespace bp::runtime {

// Runs the reference interpreter. "[log] head: the first operation to give a value that is not finite (-inf at element
// 3 of f32[64, 10]; operands: ...)", or which argument or Variable already held one; empty when everything is finite.
std::string first_nonfinite(const ir::Graph& g, std::span<const void* const> inputs);

}  // namespace bp::runtime
