// Combining hashes (the mixing step of SplitMix64, Steele et al. 2014).
#pragma once

#include <cstddef>
#include <cstdint>

namespace bp {

constexpr std::size_t hash_combine(std::size_t seed, std::size_t value) noexcept {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15ull + value;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace bp
