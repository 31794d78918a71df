// Memory that runs out: each allocation that reading a file comes to, and each buffer that a training step comes to,
// fails once. An exception comes out, and what there was before is as it was.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/bp.h"
#include "bp/io.h"

namespace {
// What still succeeds on this thread; negative: everything.
thread_local long buffers_left = -1, objects_left = -1;

bool granted(long& left) {
  if (left == 0) return false;
  if (left > 0) --left;
  return true;
}
}  // namespace

// Buffer's, and the objects'.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  void* memory = nullptr;
  if (!granted(buffers_left) || ::posix_memalign(&memory, alignment, bytes) != 0) errno = ENOMEM;
  return memory;
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return granted(objects_left) ? std::malloc(bytes == 0 ? 1 : bytes) : nullptr;
}
void* operator new(std::size_t bytes) {
  void* memory = operator new(bytes, std::nothrow);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace bp {
namespace {

// Calls f with 0, 1, 2, .. allocations (every stride-th) until it comes to its end; `kept` after each failure. How many
// there were.
template <class F, class G> long fail_at_each(long& left, F&& f, G&& kept, long stride = 1) {
  for (long n = 0;; n += stride) {
    left = n;
    try {
      f();
      left = -1;
      return n;
    } catch (const std::bad_alloc&) { left = -1; } catch (const Error& e) {
      left = -1;
      EXPECT_NE(std::string(e.what()).find("cannot allocate"), std::string::npos) << e.what();
    }
    kept();
  }
}

TEST(Allocations, OfReaders) {
  const std::string text = "a,b\n1,\"x \"\"y\"\"\"\n2,z\n", npy = [] {
    std::string h = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 1), }\n";
    return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(h.size()) + '\0' + h + "abcdefgh";
  }();
  const std::string header = R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"__metadata__":{"k":"v"}})";
  const std::string tensors = static_cast<char>(header.size()) + std::string(7, '\0') + header + "abcd";
  const auto nothing = [] {};
  for (long* left : {&buffers_left, &objects_left}) {
    const auto csv = [&] { io::parse_csv(std::as_bytes(std::span(text)), "a.csv", {.categorical = {"b"}}); };
    EXPECT_GT(fail_at_each(*left, csv, nothing), 1);
    EXPECT_GT(fail_at_each(
                  *left, [&] { io::parse_npy(std::as_bytes(std::span(npy)), "a.npy"); }, nothing),
              0);
  }
  const auto read = [&] { io::parse_safetensors(std::as_bytes(std::span(tensors)), "a.safetensors"); };
  EXPECT_GT(fail_at_each(buffers_left, read, nothing), 0);
}

// The first call of a step, with all that it compiles: when it fails, the model is as it was.
void train_with_failing(long& left, long least, long stride) {
  nn::Sequential model(nn::Linear(3, 4), nn::Tanh(), nn::Linear(4, 2));
  nn::init(model, Key{1});
  optim::Adam adam(model, {.lr = 0.1});
  auto step = compile(
      [&](const Tensor& x) {
        const Tensor loss = mean(square(model(x)));
        adam.update(grad(loss, model));
        return loss;
      },
      {.mode = Mode::train});
  const Tensor x = ones({5, 3});
  const auto values = [&] {
    std::vector<double> all;
    for (const auto& entry : nn::state(model))
      for (const double v : entry.variable.get().to_vector<double>()) all.push_back(v);
    return all;
  };
  const std::vector<double> before = values();
  const auto train = [&] { (void)step(x).item<float>(); };
  EXPECT_GT(fail_at_each(
                left, train, [&] { ASSERT_EQ(values(), before); }, stride),
            least);
  EXPECT_NE(values(), before);
}

TEST(Allocations, OfBuffersOfATrainingStep) { train_with_failing(buffers_left, 3, 1); }

// Tracing, differentiating and compiling come to 14,600 allocations; with a stride of 1 each fails, in ten seconds.
TEST(Allocations, OfObjectsOfATrainingStep) { train_with_failing(objects_left, 1000, 29); }

// Without a list that grows, and without recursion: at this length the stack would end.
TEST(Allocations, NoneToReleaseAGraph) {
  const auto chain = [](auto&& next) {
    Tensor t = watch(ones({1}));
    for (int i = 0; i < 90000; ++i) t = next(t);
    return t;
  };
  Tensor alone = chain([](const Tensor&t) { return neg(t); }), twice = chain([](const Tensor&t) { return mul(t, t); });
  objects_left = 0;
  alone = {};
  twice = {};
  EXPECT_EQ(std::exchange(objects_left, -1), 0);
}

}  // namespace
}  // namespace bp
