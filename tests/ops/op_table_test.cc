// What every row of the op table undergoes: value, gradients of first and second order, the identity of JVP and VJP,
// the optimised executable against the reference interpreter, and the errors of ops without a gradient.
#include "op_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/rng.h"
#include "ops/interpret.h"
#include "trace/node.h"

namespace bp::test {

namespace {

Values draw(const Input& in, Rng& rng) {
  Values out(static_cast<std::size_t>(in.shape.numel()));
  for (double& v : out) {
    v = in.low + (in.high - in.low) * rng.uniform();
    if (!is_float(in.dtype)) {
      v = in.dtype == boolean ? v >= (in.low + in.high) / 2 : std::floor(v);
      continue;
    }
    const double kink = std::round(2 * v) / 2;
    if (std::fabs(v - kink) < 0.05) v += std::copysign(0.05, v - kink);
    v = static_cast<float>(v);
  }
  return out;
}

std::uint64_t seed_of(const OpRow& row, std::size_t number) { return Key(number).fold(row.name).value; }

// Cases are numbered through: row.cases, then row.large.
const std::vector<Input>& inputs_of(const OpRow& row, std::size_t number) {
  return number < row.cases.size() ? row.cases[number] : row.large[number - row.cases.size()];
}

std::vector<Values> draw_all(const OpRow& row, std::size_t number) {
  Rng rng{Key(seed_of(row, number))};
  std::vector<Values> out;
  for (const Input& in : inputs_of(row, number)) out.push_back(in.values.empty() ? draw(in, rng) : in.values);
  return out;
}

Tensor as_tensor(const Values& values, const Shape& shape, DType dtype) {
  Buffer buffer = Buffer::allocate(values.size() * size_of(dtype));
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < values.size(); ++i) buffer.as_mutable<T>()[i] = static_cast<T>(values[i]);
  });
  return watch(Tensor::from_buffer(std::move(buffer), dtype, shape));
}

// The operands of a case; f64 ones as `floating`.
std::vector<Tensor> operands(const OpRow& row, std::size_t number, DType floating = f64) {
  const std::vector<Values> values = draw_all(row, number);
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Input& in = inputs_of(row, number)[i];
    out.push_back(as_tensor(values[i], in.shape, in.dtype == f64 ? floating : in.dtype));
  }
  return out;
}

std::vector<Tensor> floating_only(std::span<const Tensor> all) {
  std::vector<Tensor> out;
  for (const Tensor& t : all)
    if (is_float(t.dtype())) out.push_back(t);
  return out;
}

// One random tensor for each, of its type.
std::vector<Tensor> directions(std::span<const Tensor> like, std::uint64_t seed) {
  Rng rng{Key(seed)};
  std::vector<Tensor> out;
  for (const Tensor& t : like) {
    Values v(static_cast<std::size_t>(t.numel()));
    for (double& x : v) x = static_cast<float>(rng.normal());
    out.push_back(is_float(t.dtype()) ? as_tensor(v, t.shape(), t.dtype()) : Tensor());
  }
  return out;
}

Values values_of(const Tensor& t) { return t.to_vector<double>(); }

// What the scalar reference kernels make of the graph behind `ys`.
std::vector<Values> by_interpreter(std::span<const Tensor> ys) {
  detail::Captured c = detail::capture(ys, {}, {}, 0);
  std::vector<const void*> inputs;
  for (const ir::Input& i : c.graph.inputs) inputs.push_back(i.constant.data());
  const std::vector<Buffer> buffers = ops::interpret(c.graph, inputs);
  std::vector<Values> out;
  for (std::size_t i = 0; i < buffers.size(); ++i)
    out.push_back(values_of(Tensor::from_buffer(buffers[i], ys[i].dtype(), ys[i].shape())));
  return out;
}

void expect_near(const Values& got, const Values& want, double rtol, double atol, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    ASSERT_LE(std::fabs(got[i] - want[i]), atol + rtol * std::fabs(want[i]))
        << what << ", element " << i << ": got " << got[i] << ", expected " << want[i];
  }
}

// Outputs and, where there is one, the vector-Jacobian product in a fixed direction.
std::vector<Tensor> with_gradients(const OpRow& row, std::span<const Tensor> xs, std::size_t number) {
  std::vector<Tensor> ys = row.f(xs);
  if (row.gradient == Gradient::none) return ys;
  const std::vector<Tensor> outs = floating_only(ys);
  for (const Tensor& g : vjp(outs, floating_only(xs), directions(outs, seed_of(row, number) + 1))) ys.push_back(g);
  return ys;
}

class OpTable : public testing::TestWithParam<OpRow> {
 protected:
  template <class F> void each_case(F f, bool large = false) {
    const std::size_t count = GetParam().cases.size() + (large ? GetParam().large.size() : 0);
    for (std::size_t n = 0; n < count && !HasFatalFailure(); ++n) {
      std::string trace = "case " + std::to_string(n) + ":";
      for (const Input& in : inputs_of(GetParam(), n)) trace += " " + Type{in.dtype, in.shape}.str();
      SCOPED_TRACE(trace);
      f(n);
    }
  }
};

TEST_P(OpTable, ValueIsTheFormula) {
  const OpRow& row = GetParam();
  if (!row.expected) GTEST_SKIP() << "no formula in the row";
  each_case([&](std::size_t n) {
    const std::vector<Values> in = draw_all(row, n);
    const Values got = by_interpreter(std::vector<Tensor>{row.f(operands(row, n))[0]})[0];
    expect_near(got, row.expected(row.cases[n], in), row.rtol, 1e-300, "value");
  });
}

TEST_P(OpTable, GradientIsThatOfFiniteDifferences) {
  const OpRow& row = GetParam();
  if (row.gradient == Gradient::none) GTEST_SKIP() << "no gradient";
  each_case([&](std::size_t n) {
    const std::vector<Tensor> xs = operands(row, n);
    if (row.gradient == Gradient::zero) {
      for (const Tensor& g : vjp(row.f(xs), xs, directions(row.f(xs), 1)))
        EXPECT_THAT(values_of(g), testing::Each(0.0));
    } else if (!floating_only(xs).empty()) {
      const GradcheckResult r = gradcheck(row.f, xs, {.second_order = row.second_order});
      EXPECT_TRUE(r.ok) << r.str();
    }
  });
}

// <v, J u> = <J^T v, u>: forward and reverse mode are transposes of each other.
TEST_P(OpTable, JvpIsTheTransposeOfVjp) {
  const OpRow& row = GetParam();
  if (row.gradient == Gradient::none) GTEST_SKIP() << "no gradient";
  each_case([&](std::size_t n) {
    const std::vector<Tensor> xs = operands(row, n), us = directions(xs, 2);
    const auto [ys, tangents] = jvp(row.f, xs, us);
    const std::vector<Tensor> vs = directions(ys, 3);
    const std::vector<Tensor> back = vjp(row.f(xs), xs, vs);
    double left = 0, right = 0, size = 1e-6;
    const auto dot = [&](const Tensor& a, const Tensor& b, double& sum) {
      if (!a.defined() || !b.defined()) return;
      const Values x = values_of(a), y = values_of(b);
      for (std::size_t i = 0; i < x.size(); ++i) {
        sum += x[i] * y[i];
        size += std::fabs(x[i] * y[i]);
      }
    };
    for (std::size_t k = 0; k < ys.size(); ++k) dot(vs[k], tangents[k], left);
    for (std::size_t k = 0; k < xs.size(); ++k) dot(us[k], back[k], right);
    EXPECT_NEAR(left, right, 1e-11 * size);
  });
}

TEST_P(OpTable, ExecutableMatchesTheReferenceInterpreter) {
  const OpRow& row = GetParam();
  each_case(
      [&](std::size_t n) {
        const std::vector<Tensor> in64 = operands(row, n), in32 = operands(row, n, f32);
        const std::vector<Tensor> ys64 = with_gradients(row, in64, n), ys32 = with_gradients(row, in32, n);
        const std::vector<Values> want = by_interpreter(ys64);
        detail::CompiledStep step([&](std::span<const Tensor> xs) { return with_gradients(row, xs, n); }, {});
        const std::vector<Tensor> compiled = step.call(in32);
        evaluate(ys64);
        evaluate(ys32);
        const std::size_t outputs = row.f(in64).size();
        for (std::size_t k = 0; k < want.size(); ++k) {
          const bool value = k < outputs;
          const std::string what = value ? "output " + std::to_string(k) : "gradient " + std::to_string(k - outputs);
          expect_near(values_of(ys64[k]), want[k], 100 * row.rtol, 1e-13, "f64 " + what);
          expect_near(values_of(ys32[k]), want[k], value ? row.rtol32 : row.grad_rtol32,
                      value ? row.atol32 : row.grad_atol32, "f32 " + what);
          expect_near(values_of(compiled[k]), values_of(ys32[k]), row.rtol32, row.atol32, "compiled " + what);
        }
      },
      true);
}

TEST_P(OpTable, Bf16MatchesItsReference) {
  const OpRow& row = GetParam();
  if (row.rtol_bf16 == 0) GTEST_SKIP() << "not tried in bf16";
  each_case([&](std::size_t n) {
    const std::vector<Tensor> ys = row.f(operands(row, n, bf16));
    const std::vector<Values> want = by_interpreter(ys);
    for (std::size_t k = 0; k < ys.size(); ++k)
      expect_near(values_of(ys[k]), want[k], row.rtol_bf16, 1e-30, "bf16 output " + std::to_string(k));
  });
}

TEST_P(OpTable, WithoutGradientThrowsNamingTheOp) {
  const OpRow& row = GetParam();
  if (row.gradient != Gradient::none) GTEST_SKIP() << "has a gradient";
  each_case([&](std::size_t n) {
    const std::vector<Tensor> xs = operands(row, n);
    for (const Tensor& x : floating_only(xs)) {
      try {
        grad(sum(cast(row.f(xs)[0], f64)), x);
        ADD_FAILURE() << "a gradient of " << row.name << " was given";
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::gradient);
        EXPECT_THAT(e.what(), testing::HasSubstr("[" + (row.blamed.empty() ? row.name : row.blamed) + "]"));
      }
    }
  });
}

std::string name_of_row(const testing::TestParamInfo<OpRow>& info) {
  std::string out;
  for (char c : info.param.name) out += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  const auto same = [&](const OpRow& r) { return r.name == info.param.name; };
  if (std::count_if(op_rows().begin(), op_rows().end(), same) > 1) out += "_" + std::to_string(info.index);
  return out;
}
INSTANTIATE_TEST_SUITE_P(Rows, OpTable, testing::ValuesIn(op_rows()), name_of_row);

// The ops behind a row: of its value, its gradient and the gradient of that.
std::set<std::string> ops_used(const OpRow& row) {
  std::set<std::string> used;
  for (std::size_t n = 0; n < row.cases.size(); ++n) {
    const std::vector<Tensor> xs = operands(row, n);
    std::vector<Tensor> roots = with_gradients(row, xs, n);
    if (row.gradient == Gradient::checked && row.second_order) {
      const std::vector<Tensor> all = floating_only(roots);
      for (const Tensor& g : vjp(all, floating_only(xs), directions(all, 5))) roots.push_back(g);
    }
    for (const ir::Node& node : detail::capture(roots, {}, {}, 0).graph.nodes) used.insert(ir::name_of(node.op));
  }
  return used;
}

TEST(OpTableCoverage, EveryOpHasARowThatUsesIt) {
  std::set<std::string> covered;
  for (const OpRow& row : op_rows()) {
    const std::set<std::string> used = ops_used(row);
    for (std::size_t id = 0; id < static_cast<std::size_t>(ir::OpId::count); ++id) {
      const std::string name = ir::name_of(static_cast<ir::OpId>(id));
      const bool listed = name == row.name || std::count(row.covers.begin(), row.covers.end(), name) != 0;
      if (!listed) continue;
      EXPECT_EQ(used.count(name), 1u) << "row " << row.name << " does not use the op " << name;
      covered.insert(name);
    }
  }
  for (std::size_t id = 0; id < static_cast<std::size_t>(ir::OpId::count); ++id) {
    const ir::OpDef& def = ir::op_def(static_cast<ir::OpId>(id));
    if (static_cast<ir::OpId>(id) != ir::OpId::input) {
      EXPECT_EQ(covered.count(def.name), 1u) << "no row of the op table covers " << def.name;
    }
  }
}

TEST(OpTableCoverage, FlagsSayWhatTheRowsSay) {
  for (const OpRow& row : op_rows())
    for (std::size_t id = 0; id < static_cast<std::size_t>(ir::OpId::count); ++id) {
      const ir::OpDef& def = ir::op_def(static_cast<ir::OpId>(id));
      if (def.name != row.name || def.cls == ir::OpClass::leaf) continue;
      const bool refuses = (def.flags & ir::kNotDifferentiable) != 0;
      EXPECT_EQ(refuses, row.gradient == Gradient::none) << row.name;
      EXPECT_TRUE(def.vjp != nullptr || (def.flags & (ir::kNotDifferentiable | ir::kZeroGradient)) != 0)
          << row.name << " has neither a rule nor a flag";
    }
}

}  // namespace
}  // namespace bp::test
