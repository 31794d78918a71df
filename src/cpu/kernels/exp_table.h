// What exp of f32 takes where a vector has 16 lanes (AVX-512): x = n ln 2 + r with n a multiple of 1/16, |r| at most
// ln 2 / 32, exp(x) = 2^floor(n) 2^(n - floor(n)) (1 + (exp(r) - 1)); the middle factor is looked up in a register.
// Two operations less than a polynomial on |r| <= ln 2 / 2 (P. T. P. Tang, "Table-driven implementation of the
// exponential function", 1989). Shared by simd_math-inl.h and machine code, which give the same bits.
#pragma once

#include <array>

namespace bp::cpu {

// 2^(i / 16).
alignas(64) inline constexpr std::array<float, 16> kSixteenthPowers = {
    0x1.000000p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fe0p+0f, 0x1.3dea64p+0f,
    0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
    0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

struct ExpConstants {
  static constexpr double kLog2E = 1.442695040888963407359924681;
  // Added to a number below 2^18 it leaves its sixteenths in the lowest bits.
  static constexpr double kSixteenths = 786432.0;
  static constexpr double kLn2 = 0.693147182464599609375, kLn2Rest = -1.9046542999577679e-9;
  // exp(r) - 1 = r + r^2 (kSecond + kThird r), minimax, error 2^-29.
  static constexpr double kSecond = 0.50001619, kThird = 0.16667039;
};

}  // namespace bp::cpu
