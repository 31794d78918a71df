// Machine code made at run time: executable memory that equal code shares. Read-only once it can be executed.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace bp::cpu {

// Whether kernels take machine code here: x86-64 with AVX-512 within BP_MAX_ISA, unless BP_MACHINE_CODE=off.
bool machine_code_wanted();

class MachineCode {
 public:
  // Null where the system grants no executable memory. The code must not depend on its address.
  static std::shared_ptr<const MachineCode> make(std::span<const std::byte> code);
  ~MachineCode();
  MachineCode(const MachineCode&) = delete;
  MachineCode& operator=(const MachineCode&) = delete;

  template <class Function> Function entry() const noexcept { return reinterpret_cast<Function>(memory_); }

 private:
  MachineCode(void* memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}
  void* memory_;
  std::size_t bytes_;
};

}  // namespace bp::cpu
