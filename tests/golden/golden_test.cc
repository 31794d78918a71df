// Whole trainings against PyTorch's: 20 steps from weights and data made by formula (bench/cases.h), in f64 and f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../../bench/cases.h"

namespace {

struct Golden {
  std::vector<double> losses, norms;
  double f32_dev;
};

Golden golden(const std::string& name) {
  const nlohmann::ordered_json all = nlohmann::ordered_json::parse(std::ifstream(BP_TEST_DATA "/golden.json")),
                               &one = all[name];
  Golden g;
  for (const auto& v : one["losses"]) g.losses.push_back(v);
  for (const auto& v : one["grad_norms_step0"]) g.norms.push_back(v);
  g.f32_dev = one["f32_dev"];
  return g;
}

// The file keeps 9 digits of a loss and 8 of a norm: half a unit of the last one is its own error.
double rounding(double x, int digits) { return 0.5 * std::pow(10.0, std::floor(std::log10(std::abs(x))) + 1 - digits); }

// Under the sanitizers a step takes seconds; memory errors show in the first ones.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kSteps = 2, kHeavySteps = 1;
#else
constexpr std::size_t kSteps = 20, kHeavySteps = 2;
#endif

void replay(const std::string& name, bp::DType dtype, std::size_t steps, double tolerance) {
  const Golden expected = golden(name);
  const bench::Numbers numbers = bench::numbers_of(dtype);
  const bool mixed = numbers.precision == bp::bf16;
  const bench::Case c = bench::make_case(name, numbers.values);
  auto step = bp::compile([&](const bp::Tensor& x, const bp::Tensor& t) { return bench::golden_step(c, x, t); },
                          {.mode = bp::Mode::train, .precision = numbers.precision});
  for (std::size_t s = 0; s < std::min(steps, expected.losses.size()); ++s) {
    const auto [x, t] = c.batch(static_cast<std::uint32_t>(s));
    const std::vector<bp::Tensor> out = step(x, t);
    const double loss = expected.losses[s];
    EXPECT_NEAR(out[0].item(), loss, tolerance * std::abs(loss) + rounding(loss, 9)) << name << " step " << s;
    if (s != 0 || mixed) continue;  // a gradient that is zero but for rounding has no relative error
    ASSERT_EQ(out.size() - 1, expected.norms.size());
    for (std::size_t k = 0; k < expected.norms.size(); ++k)
      EXPECT_NEAR(out[k + 1].item(), expected.norms[k], tolerance * expected.norms[k] + rounding(expected.norms[k], 8))
          << name << " gradient of parameter " << k;
  }
}

double f32_tolerance(const std::string& name) { return std::max(20 * golden(name).f32_dev, 1e-5); }

TEST(Golden, TinyF64) { replay("tiny", bp::f64, kSteps, 1e-8); }
TEST(Golden, TinyF32) { replay("tiny", bp::f32, kSteps, f32_tolerance("tiny")); }
TEST(Golden, MlpF64) { replay("mlp", bp::f64, kSteps, 1e-8); }
TEST(Golden, MlpF32) { replay("mlp", bp::f32, kSteps, f32_tolerance("mlp")); }
TEST(Golden, CnnF64) { replay("cnn", bp::f64, kSteps, 1e-8); }
TEST(Golden, CnnF32) { replay("cnn", bp::f32, kSteps, f32_tolerance("cnn")); }

// Chaotic at its rate, and heavy: the first steps only. bench/golden replays all of them.
TEST(Golden, Resnet20F64) { replay("resnet20", bp::f64, kHeavySteps, 1e-8); }
TEST(Golden, Resnet20F32) { replay("resnet20", bp::f32, kHeavySteps, 5e-3); }
TEST(Golden, LstmF64) { replay("lstm", bp::f64, kHeavySteps, 1e-7); }
TEST(Golden, LstmF32) { replay("lstm", bp::f32, kHeavySteps, f32_tolerance("lstm")); }
TEST(Golden, GptF64) { replay("gpt", bp::f64, 1, 1e-7); }
TEST(Golden, GptF32) { replay("gpt", bp::f32, kHeavySteps, f32_tolerance("gpt")); }

// Mixed precision: bf16 rounds to 2^-9 of a number. Losses stay within a few times that.
constexpr double kMixed = 8 * 0x1p-9;
TEST(Golden, TinyBf16) { replay("tiny", bp::bf16, kSteps, kMixed); }
TEST(Golden, MlpBf16) { replay("mlp", bp::bf16, kSteps, kMixed); }
TEST(Golden, CnnBf16) { replay("cnn", bp::bf16, kSteps, kMixed); }
TEST(Golden, Resnet20Bf16) { replay("resnet20", bp::bf16, kHeavySteps, kMixed); }
TEST(Golden, LstmBf16) { replay("lstm", bp::bf16, kHeavySteps, kMixed); }
TEST(Golden, GptBf16) { replay("gpt", bp::bf16, kHeavySteps, kMixed); }

}  // namespace
