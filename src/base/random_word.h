// random_word: the one definition of the random bits behind uniform, normal, bernoulli and dropout. The scalar
// reference op and the SIMD loop kernels must both agree with it bit for bit.
#pragma once

#include <cstdint>

#include "bp/rng.h"

namespace bp {

// The key of one place of use: the seed of the run with the 64-bit place (layer path, ordinal, scan index, rank) folded
// in.
inline std::uint64_t random_key(std::int64_t seed, std::uint64_t place) noexcept {
  return Key(static_cast<std::uint64_t>(seed)).fold(place).value;
}

// Word of element i (row-major linear index) of the tensor drawn at `place` in step `counter`:
//   philox({lo32(i / 4), hi32(i / 4), lo32(counter), hi32(counter)}, random_key(seed, place))[i % 4]
// A uniform integer of w <= 24 bits is the word's top bits, word >> (32 - w): exact in f32.
inline std::uint32_t random_word(std::int64_t seed, std::int64_t counter, std::uint64_t place,
                                 std::uint64_t i) noexcept {
  const std::uint64_t block = i / 4, step = static_cast<std::uint64_t>(counter);
  const auto words = philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                             static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32)},
                            random_key(seed, place));
  return words[i % 4];
}

}  // namespace bp
