// Initialisers: moments, bounds, fans, orthogonality, reproducibility.
#include "state/expectations.h"

namespace bp {
namespace {

using test::Doubles;
using ::testing::HasSubstr;

struct Moments {
  double mean = 0, variance = 0, low = 0, high = 0;
};
Moments moments(const Tensor& t) {
  const Doubles v = t.to_vector<double>();
  Moments m{0, 0, v[0], v[0]};
  for (const double x : v) {
    m.mean += x / static_cast<double>(v.size());
    m.low = std::min(m.low, x);
    m.high = std::max(m.high, x);
  }
  for (const double x : v) m.variance += (x - m.mean) * (x - m.mean) / static_cast<double>(v.size());
  return m;
}

TEST(Init, FansFollowTheLayout) {
  const Fans linear = fans_of({30, 50});
  EXPECT_EQ(linear.in, 30);
  EXPECT_EQ(linear.out, 50);
  const Fans conv = fans_of({3, 5, 16, 32});
  EXPECT_EQ(conv.in, 3 * 5 * 16);
  EXPECT_EQ(conv.out, 3 * 5 * 32);
  EXPECT_THAT(message_of(ErrorKind::shape, [] { fans_of({7}); }), HasSubstr("[7]"));
}

TEST(Init, VariancesAreThoseOfThePapers) {
  const Shape shape{200, 300};  // 60,000 values: the variance is known to about 0.6%
  const struct {
    Initializer init;
    double variance;
    bool uniform;
  } cases[] = {{init::glorot_uniform(), 2.0 / 500, true},
               {init::glorot_normal(), 2.0 / 500, false},
               {init::he_uniform(), 2.0 / 200, true},
               {init::he_normal(), 2.0 / 200, false},
               {init::he_normal(0, init::FanMode::out), 2.0 / 300, false},
               {init::he_normal(2), 2.0 / 5 / 200, false},
               {init::lecun_uniform(), 1.0 / 200, true},
               {init::lecun_normal(), 1.0 / 200, false},
               {init::pytorch_default(), 1.0 / 3 / 200, true},
               {init::normal(0, 0.5), 0.25, false},
               {init::uniform(-1, 1), 1.0 / 3, true}};
  for (const auto& c : cases) {
    const Moments m = moments(c.init(shape, Key{5}, f64));
    EXPECT_NEAR(m.mean, 0, 5 * std::sqrt(c.variance / 60000)) << c.init.name();
    EXPECT_NEAR(m.variance, c.variance, 0.03 * c.variance) << c.init.name();
    const double bound = std::sqrt(3 * c.variance);
    if (c.uniform) {
      EXPECT_GE(m.low, -bound) << c.init.name();
      EXPECT_LE(m.high, bound) << c.init.name();
      EXPECT_GT(m.high, 0.999 * bound) << c.init.name();
    } else {
      EXPECT_GT(m.high, 3 * std::sqrt(c.variance)) << c.init.name();
    }
  }
}

TEST(Init, TruncatedNormalStaysInsideAndIsNormalThere) {
  const Moments m = moments(init::truncated_normal(1, 2, -1, 3)({100, 100}, Key{1}, f64));
  EXPECT_GE(m.low, -1);
  EXPECT_LE(m.high, 3);
  EXPECT_NEAR(m.mean, 1, 0.05);
  EXPECT_NEAR(m.variance, 4 * 0.2911251, 0.03);  // of a normal cut at one deviation
  // A tail far out: rejection would never end.
  const Moments tail = moments(init::truncated_normal(0, 1, 6, 7)({50, 10}, Key{1}, f64));
  EXPECT_GE(tail.low, 6);
  EXPECT_LE(tail.high, 7);
  EXPECT_NEAR(tail.mean, 6.158, 0.03);
}

double orthogonality_error(const Tensor& w, std::size_t cols) {
  const Doubles v = w.to_vector<double>();
  const std::size_t rows = v.size() / cols;
  const bool tall = rows >= cols;
  const std::size_t n = tall ? cols : rows;
  double worst = 0;
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = 0; b < n; ++b) {
      double dot = 0;
      for (std::size_t k = 0; k < (tall ? rows : cols); ++k)
        dot += tall ? v[k * cols + a] * v[k * cols + b] : v[a * cols + k] * v[b * cols + k];
      worst = std::max(worst, std::abs(dot - (a == b ? 1 : 0)));
    }
  return worst;
}

TEST(Init, OrthogonalHasOrthonormalColumnsOrRows) {
  for (const Shape& shape : {Shape{7, 5}, Shape{5, 7}, Shape{6, 6}, Shape{1, 1}, Shape{3, 3, 2, 8}})
    EXPECT_LT(orthogonality_error(init::orthogonal()(shape, Key{3}, f64), static_cast<std::size_t>(shape.back())),
              1e-13)
        << shape.str();
  EXPECT_NEAR(orthogonality_error(init::orthogonal(2)({6, 6}, Key{3}, f64), 6), 3, 1e-12);  // 2^2 - 1
  // Uniform over the group: both determinants, both signs of the first entry.
  int positive = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed)
    positive += init::orthogonal()({1, 1}, Key{seed}, f64).item() > 0 ? 1 : 0;
  EXPECT_GT(positive, 60);
  EXPECT_LT(positive, 140);
}

TEST(Init, EqualKeysGiveEqualValuesInEveryDtype) {
  const auto he = init::he_normal();
  const Tensor a = he({4, 8}, Key{9}, f32), b = he({4, 8}, Key{9}, f32), c = he({4, 8}, Key{10}, f32);
  EXPECT_EQ(a.to_vector<double>(), b.to_vector<double>());
  EXPECT_NE(a.to_vector<double>(), c.to_vector<double>());
  const Tensor wide = he({4, 8}, Key{9}, f64);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(a.data<float>()[i], static_cast<float>(wide.data<double>()[i]));
}

TEST(Init, NamesAndWrongParameters) {
  EXPECT_EQ(init::from_name("glorot_uniform").name(), "glorot_uniform");
  EXPECT_THAT(message_of(ErrorKind::value, [] { init::from_name("xavier"); }), HasSubstr("glorot_uniform"));
  message_of(ErrorKind::value, [] { init::normal(0, -1); });
  message_of(ErrorKind::value, [] { init::uniform(1, 1); });
  message_of(ErrorKind::value, [] { init::truncated_normal(0, 1, 2, std::nan("")); });
  message_of(ErrorKind::value, [] { init::glorot_normal(0); });
  message_of(ErrorKind::shape, [] { init::orthogonal()({3}, Key{1}); });
}

}  // namespace
}  // namespace bp
