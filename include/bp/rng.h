// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The same (key, counter) gives the same bits on every machine, thread count and order of evaluation.
//
//   const Key key{42};
//   assert(Rng(key.fold("a")).bits() == Rng(key.fold("a")).bits() && key.fold("a") != key.fold("b"));
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace bp {

// A 64-bit key. Independent streams are derived, never drawn: key.fold("conv1").fold(3).
struct Key {
  std::uint64_t value = 0;  // all of it
  constexpr Key() = default;
  constexpr explicit Key(std::uint64_t seed) : value(seed) {}  // any number; equal seeds, equal draws
  Key fold(std::uint64_t n) const noexcept;                    // a key of its own for the n-th use
  Key fold(std::string_view name) const noexcept;              // a key of its own for a name
  friend bool operator==(Key, Key) = default;
};

// Four 32-bit words for a 128-bit counter (low words first) and a key.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key) noexcept;

// A sequential view for the host side (shuffles, initialisers): draws word after word of the stream of one key.
class Rng {
 public:
  explicit Rng(Key key) noexcept : key_(key.value) {}  // from the stream's beginning
  std::uint32_t bits() noexcept;                       // 32 of them
  double uniform() noexcept;                           // [0, 1), 53 bits
  double normal() noexcept;                            // Box-Muller
  std::uint64_t below(std::uint64_t n) noexcept;       // unbiased integer in [0, n), n > 0

 private:
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int left_ = 0;
};

}  // namespace bp
