// Random numbers as pure functions of (seed, counter, place). Called by users, dropout and initialisers inside a step.
#include <cmath>
#include <numbers>

#include "base/random_word.h"
#include "ops/common.h"
#include "trace/body.h"

namespace bp {
namespace ir {
using namespace ops;

constinit const OpDef op_random_bits{
    .name = "random_bits",
    .cls = OpClass::leaf,
    .flags = kNotDifferentiable,
    .infer = [](const InferArgs& a) -> std::vector<Type> {
      if (!(a.in[0] == Type{DType::i64, {2}}))
        fail(ErrorKind::shape, "[random_bits] expected the state i64[2] (seed, counter), got {}", a.in[0].str());
      if (const auto width = a.attrs.integer("width"); width < 1 || width > 31)
        fail(ErrorKind::value, "[random_bits] expected a width of 1 to 31 bits, got {}", width);
      return {{DType::i32, a.attrs.shape("shape")}};
    },
    .vjp = nullptr,
    .reference =
        [](const KernelArgs& k) {
          const std::int64_t* state = k.in[0].as<std::int64_t>();
          const auto place = static_cast<std::uint64_t>(k.attrs.integer("place"));
          const auto shift = static_cast<int>(32 - k.attrs.integer("width"));
          std::int32_t* y = k.out[0].as<std::int32_t>();
          for (std::int64_t i = 0, n = k.out[0].type.shape.numel(); i < n; ++i)
            y[i] = static_cast<std::int32_t>(random_word(state[0], state[1], place, static_cast<std::uint64_t>(i)) >>
                                             shift);
        },
    .doc = "i32 in [0, 2^width): the top bits of Philox4x32-10 words of (seed, counter, place, element)"};

}  // namespace ir

using namespace ops;

namespace {
// The most bits of which every multiple of 2^-bits in [0, 1) is exact in `dtype`; at most 24.
int uniform_bits(DType dtype) { return dtype == DType::bf16 ? 8 : 24; }

void require_float(DType dtype, const char* op) {
  if (!is_float(dtype)) fail(ErrorKind::dtype, "[{}] expected a floating dtype, got {}", op, name_of(dtype));
}
}  // namespace

namespace {
// Inside a scan every iteration draws anew: its number moves the seed, differently for each loop it is nested in.
Tensor in_iteration(Tensor state) {
  std::uint64_t stride = 0x9E3779B97F4A7C15ull;  // odd: no two iterations meet
  for (const detail::Region* r = detail::thread_state().region; r != nullptr; r = r->outer(), stride *= stride)
    if (r->index.defined())
      state = state + pad((reshape(r->index, {1}) + 1) * Tensor::from({static_cast<std::int64_t>(stride)}), {0}, {1});
  return state;
}
}  // namespace

Tensor random_bits(const Tensor& state, const Shape& shape, int width, std::uint64_t place) {
  return record1(OpId::random_bits, {in_iteration(state)},
                 {{"shape", ir::to_ints(shape)},
                  {"width", static_cast<std::int64_t>(width)},
                  {"place", static_cast<std::int64_t>(place)}});
}

Tensor random_uniform(const Tensor& state, const Shape& shape, DType dtype, std::uint64_t place) {
  require_float(dtype, "random_uniform");
  const int bits = uniform_bits(dtype);
  return cast(random_bits(state, shape, bits, place), dtype) * std::ldexp(1.0, -bits);
}

Tensor random_normal(const Tensor& state, const Shape& shape, DType dtype, std::uint64_t place) {
  require_float(dtype, "random_normal");
  const DType t = dtype == DType::f64 ? DType::f64 : DType::f32;
  // Two independent draws: u in (0, 1], so that the logarithm is finite, and an angle.
  const Tensor u = (cast(random_bits(state, shape, 24, place), t) + 1) * std::ldexp(1.0, -24);
  const Tensor angle = random_uniform(state, shape, t, Key(place).fold("angle").value) * (2 * std::numbers::pi);
  return cast(sqrt(log(u) * -2) * cos(angle), dtype);
}

Tensor random_bernoulli(const Tensor& state, const Shape& shape, double p, std::uint64_t place) {
  if (!(p >= 0 && p <= 1)) fail(ErrorKind::value, "[random_bernoulli] expected a probability in [0, 1], got {}", p);
  return random_bits(state, shape, 24, place) < std::nearbyint(std::ldexp(p, 24));
}

Tensor random_state(Key key) { return Tensor::from({static_cast<std::int64_t>(key.value), std::int64_t{0}}); }

}  // namespace bp
