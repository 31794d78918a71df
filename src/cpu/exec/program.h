// Program: the steps of an executable and the memory they touch, before (buffers) and after (offsets) planning.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bp/buffer.h"
#include "cpu/exec/kernel.h"

namespace bp::cpu {

using BufferId = std::uint32_t;

// For how long a value of a loop's body stays what it is.
enum class Lasting : std::uint8_t {
  iteration,
  part,  // all iterations, on the same rows of the batch
  loop,  // all iterations and rows
};

struct MemoryRef {
  enum class Kind : std::uint8_t {
    arena,     // planned: lives from its first writer to its last reader
    shared,    // what copies of the program read alike, at `offset` of memory of its own
    input,     // the caller's, by index into the executable's inputs
    output,    // the caller's, by index into the executable's outputs
    constant,  // owned by the program
  };
  Kind kind = Kind::arena;
  std::size_t bytes = 0;
  std::uint32_t index = 0;  // input, output
  Buffer constant = {};     // constant
  std::size_t offset = 0;   // arena: set by plan; shared
};

struct Step {
  std::unique_ptr<Kernel> kernel;
  std::vector<BufferId> reads, writes;
  // Reads that may share memory with the first write (same index, element by element).
  bool inplace_safe = false;
  Lasting lasting = Lasting::iteration;  // of what it writes
  StepInfo info;
};

struct Program {
  std::vector<MemoryRef> buffers;
  std::vector<Step> steps;
  // So many steps at the front are run once for many runs of the rest, which read what they leave; the first `shared`
  // of them once for all copies of the program that have the same rows.
  std::size_t shared = 0, prologue = 0;
  std::size_t shared_bytes = 0;
  std::size_t arena_bytes = 0;
  std::size_t workspace_bytes = 0;
};

}  // namespace bp::cpu
