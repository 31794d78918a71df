// Philox4x32-10 and key derivation.
#include "bp/rng.h"

#include <cmath>
#include <numbers>

namespace bp {

namespace {
constexpr std::uint32_t kM0 = 0xD2511F53u, kM1 = 0xCD9E8D57u;  // multipliers and Weyl constants of the paper, table 2
constexpr std::uint32_t kW0 = 0x9E3779B9u, kW1 = 0xBB67AE85u;

// The finaliser of SplitMix64 (Steele et al., 2014): a bijection whose outputs look independent.
constexpr std::uint64_t mix(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}
}  // namespace

Key Key::fold(std::uint64_t n) const noexcept { return Key(mix(value + 0x9E3779B97F4A7C15ull * (n + 1)) ^ mix(n)); }

Key Key::fold(std::string_view name) const noexcept {
  std::uint64_t h = 0xcbf29ce484222325ull;  // FNV-1a
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return fold(h);
}

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::uint64_t key) noexcept {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{kM0} * c[0], p1 = std::uint64_t{kM1} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += kW0;
    k1 += kW1;
  }
  return c;
}

std::uint32_t Rng::bits() noexcept {
  if (left_ == 0) {
    words_ = philox({static_cast<std::uint32_t>(counter_), static_cast<std::uint32_t>(counter_ >> 32), 0, 0}, key_);
    ++counter_;
    left_ = 4;
  }
  return words_[static_cast<std::size_t>(--left_)];
}

double Rng::uniform() noexcept {
  const std::uint64_t hi = bits() >> 5, lo = bits() >> 6;
  return static_cast<double>((hi << 26) | lo) * 0x1p-53;
}

double Rng::normal() noexcept {
  const double r = std::sqrt(-2.0 * std::log1p(-uniform()));
  return r * std::cos(2.0 * std::numbers::pi * uniform());
}

std::uint64_t Rng::below(std::uint64_t n) noexcept {
  const std::uint64_t limit = (0 - n) % n;  // 2^64 mod n: smaller draws would be biased
  for (;;) {
    const std::uint64_t x = (static_cast<std::uint64_t>(bits()) << 32) | bits();
    if (x >= limit) return x % n;
  }
}

}  // namespace bp
