// The widest instruction set that kernels may use. The environment variable BP_MAX_ISA holds a process to less than its
// processor offers: to test what weaker machines run, or to compare. Read by the SIMD kernels and by the oneDNN engine.
#pragma once

#include <string_view>

namespace bp {

enum class Isa { base, sse4, avx2, avx512 };

// "base" (what the compiler takes for granted), "sse4", "avx2" or "avx512"; anything else is an ErrorKind::config.
Isa parse_isa(std::string_view name);

const char* name_of(Isa isa) noexcept;

// BP_MAX_ISA, read once; avx512 (no limit) where it is not set or empty.
Isa max_isa();
// What kernels run with here: the widest that the processor has, within BP_MAX_ISA. Below sse4, and on processors other
// than x86, base.
Isa running_isa();

}  // namespace bp
