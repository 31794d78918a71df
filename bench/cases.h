// The cases of the training-step benchmark (tiny, mlp, cnn, resnet20, lstm, gpt, gpt12): models, data made by formula,
// losses and optimizers. Used by golden, train_step and gradient_cost. The numbering of parameters and batches follows
// the golden runs' recipe:
//   h = (i+1) * 2654435761 xor (k+1) * 2246822519; h ^= h >> 16; h *= 0x85EBCA6B; h ^= h >> 13; h *= 0xC2B2AE35; h ^= h
//   >> 16 uniform(k, i) = (h >> 8) / 2^24; a parameter is (2 uniform - 1) / sqrt(fan_in); batch s: inputs k = 1000 +
//   2s, targets k = 1001 + 2s. Weights of norms are 1, their biases 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bp/bp.h"
#include "gpt_case.h"
#include "lstm_case.h"
#include "resnet20_case.h"

namespace bench {

inline std::uint32_t bits(std::uint32_t k, std::uint32_t i) {
  std::uint32_t h = ((i + 1) * 2654435761u) ^ ((k + 1) * 2246822519u);
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  return h ^ (h >> 16);
}
inline double uniform(std::uint32_t k, std::uint32_t i) { return (bits(k, i) >> 8) / 16777216.0; }

// What a run in a dtype is made of: bf16 asks for mixed precision.
struct Numbers {
  bp::DType values, precision;
};
inline Numbers numbers_of(bp::DType asked) {
  return asked == bp::bf16 ? Numbers{bp::f32, bp::bf16} : Numbers{asked, bp::f32};
}

// A tensor of `shape` from values in double.
inline bp::Tensor make(const std::vector<double>& values, const bp::Shape& shape, bp::DType dtype) {
  if (dtype == bp::f64) return bp::Tensor::from(values, shape);
  return bp::Tensor::from(std::vector<float>(values.begin(), values.end()), shape);
}

// Parameter k in our layout. The formula counts in [out, in] and [out, in, h, w]; we store [in, out] and [h, w, in,
// out]. What is no kernel (a table of embeddings) is stored as it is counted.
inline bp::Tensor parameter(std::uint32_t k, const bp::Shape& shape, bp::DType dtype, bool kernel = true) {
  const std::int64_t n = shape.numel();
  std::vector<double> values(static_cast<std::size_t>(n));
  if (!kernel) {
    const double fan_in = static_cast<double>(shape.rank() > 1 ? n / shape[0] : n);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = (2 * uniform(k, static_cast<std::uint32_t>(i)) - 1) / std::sqrt(fan_in);
    return make(values, shape, dtype);
  }
  const std::int64_t out = shape.back(), rows = n / out;  // ours: [rows, out]
  const double fan_in = shape.rank() > 1 ? static_cast<double>(rows) : static_cast<double>(n);
  const std::int64_t in = shape.rank() > 2 ? shape[shape.rank() - 2] : 1, spatial = shape.rank() > 2 ? rows / in : rows;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < out; ++o) {
      const std::int64_t theirs = shape.rank() == 1   ? o
                                  : shape.rank() == 2 ? o * rows + r
                                                      : (o * in + r % in) * spatial + r / in;
      values[static_cast<std::size_t>(r * out + o)] =
          (2 * uniform(k, static_cast<std::uint32_t>(theirs)) - 1) / std::sqrt(fan_in);
    }
  return make(values, shape, dtype);
}

inline bp::Tensor uniform_tensor(std::uint32_t k, const bp::Shape& shape, bp::DType dtype) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = uniform(k, static_cast<std::uint32_t>(i));
  return make(values, shape, dtype);
}
// Images [N, H, W, C]; the formula counts in [N, C, H, W].
inline bp::Tensor image_tensor(std::uint32_t k, const bp::Shape& shape, bp::DType dtype) {
  const std::int64_t channels = shape.back(), pixels = shape[1] * shape[2];
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    const std::int64_t n = i / (pixels * channels), pixel = i / channels % pixels, c = i % channels;
    values[static_cast<std::size_t>(i)] = uniform(k, static_cast<std::uint32_t>((n * channels + c) * pixels + pixel));
  }
  return make(values, shape, dtype);
}
inline bp::Tensor class_tensor(std::uint32_t k, const bp::Shape& shape, std::uint32_t classes) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = bits(k, static_cast<std::uint32_t>(i)) % classes;
  return bp::Tensor::from(values, shape);
}

struct Tiny {
  bp::nn::Linear l1{2, 16}, l2{16, 16}, l3{16, 1};
  bp::Tensor operator()(const bp::Tensor& x) const { return l3(bp::tanh(l2(bp::tanh(l1(x))))); }
  BP_FIELDS(Tiny, l1, l2, l3)
};
struct Mlp {
  bp::nn::Linear l1{784, 512}, l2{512, 256}, l3{256, 10};
  bp::Tensor operator()(const bp::Tensor& x) const { return l3(bp::relu(l2(bp::relu(l1(x))))); }
  BP_FIELDS(Mlp, l1, l2, l3)
};
struct Cnn {
  bp::nn::Conv2d c1{1, 32, 3, {.padding = 1}}, c2{32, 64, 3, {.padding = 1}};
  bp::nn::Flatten flat{{.channels_first = true}};
  bp::nn::Linear l1{3136, 128}, l2{128, 10};
  bp::Tensor operator()(const bp::Tensor& x) const {
    const bp::Tensor h = bp::max_pool(bp::relu(c1(x)), 2);
    return l2(bp::relu(l1(flat(bp::max_pool(bp::relu(c2(h)), 2)))));
  }
  BP_FIELDS(Cnn, c1, c2, flat, l1, l2)
};

// One benchmark case, ready to be compiled. `scale` multiplies the learning rate.
struct Case {
  std::vector<bp::Variable> parameters;
  std::function<std::vector<bp::nn::NamedVariable>()> state;
  std::function<bp::Tensor(const bp::Tensor&)> model;
  std::function<bp::Tensor(const bp::Tensor&, const bp::Tensor&)> loss;  // of output and target
  std::shared_ptr<bp::optim::Optimizer> optimizer;
  std::function<std::pair<bp::Tensor, bp::Tensor>(std::uint32_t step)> batch;
  std::shared_ptr<void> owner;  // of the model
};

template <class M> Case with_model(bp::DType dtype) {
  auto model = std::make_shared<M>();
  bp::nn::init(*model, bp::Key(0), dtype);
  std::vector<bp::Variable> norms;  // keep the 1 and 0 that init gave them
  bp::nn::for_each_layer(*model, [&](const std::string&, bp::nn::Layer& layer) {
    if (!std::string_view(layer.kind()).ends_with("_norm")) return;
    for (bp::Variable& v : bp::nn::parameters(layer)) norms.push_back(std::move(v));
  });
  Case c;
  c.parameters = bp::nn::parameters(*model);
  std::uint32_t k = 0;
  for (bp::nn::NamedVariable& s : bp::nn::state(*model)) {
    bp::Variable& v = s.variable;
    if (!v.trainable()) continue;
    const auto same = [&v](const bp::Variable& norm) { return norm.same_cell(v); };
    if (std::none_of(norms.begin(), norms.end(), same)) v.set(parameter(k, v.shape(), dtype, s.is_kernel));
    ++k;
  }
  c.model = [m = model.get()](const bp::Tensor& x) { return (*m)(x); };
  c.state = [m = model.get()] { return bp::nn::state(*m); };
  c.owner = model;
  return c;
}

inline bp::Tensor class_loss(const bp::Tensor& y, const bp::Tensor& t) { return bp::cross_entropy(y, t); }

inline Case make_case(const std::string& name, bp::DType dtype, double scale = 1) {
  Case c;
  if (name == "tiny") {
    c = with_model<Tiny>(dtype);
    c.loss = [](const bp::Tensor& y, const bp::Tensor& t) { return bp::squared_error(y, t); };
    c.optimizer = std::make_shared<bp::optim::SGD>(c.parameters, bp::optim::SGDOptions{.lr = 0.1 * scale});
    c.batch = [dtype](std::uint32_t s) {
      return std::pair(uniform_tensor(1000 + 2 * s, {32, 2}, dtype), uniform_tensor(1001 + 2 * s, {32, 1}, dtype));
    };
  } else if (name == "mlp" || name == "cnn") {
    const bool cnn = name == "cnn";
    c = cnn ? with_model<Cnn>(dtype) : with_model<Mlp>(dtype);
    c.loss = class_loss;
    c.optimizer = std::make_shared<bp::optim::Adam>(c.parameters, bp::optim::AdamOptions{.lr = 1e-3 * scale});
    const bp::Shape shape = cnn ? bp::Shape{64, 28, 28, 1} : bp::Shape{64, 784};
    c.batch = [dtype, shape](std::uint32_t s) {
      return std::pair(uniform_tensor(1000 + 2 * s, shape, dtype), class_tensor(1001 + 2 * s, {64}, 10));
    };
  } else if (name == "resnet20") {
    c = with_model<ResNet20>(dtype);
    c.loss = class_loss;
    c.optimizer = std::make_shared<bp::optim::SGD>(
        c.parameters, bp::optim::SGDOptions{.lr = 0.1 * scale, .momentum = 0.9, .weight_decay = 1e-4});
    c.batch = [dtype](std::uint32_t s) {
      return std::pair(image_tensor(1000 + 2 * s, {64, 32, 32, 3}, dtype), class_tensor(1001 + 2 * s, {64}, 10));
    };
  } else if (name == "lstm") {
    c = with_model<Lstm>(dtype);
    c.loss = class_loss;
    c.optimizer = std::make_shared<bp::optim::Adam>(c.parameters, bp::optim::AdamOptions{.lr = 1e-3 * scale});
    c.batch = [](std::uint32_t s) {
      return std::pair(class_tensor(1000 + 2 * s, {32, 64}, 96), class_tensor(1001 + 2 * s, {32, 64}, 96));
    };
  } else if (name == "gpt" || name == "gpt12") {
    c = name == "gpt" ? with_model<Gpt>(dtype) : with_model<GptOf<12>>(dtype);
    c.loss = class_loss;
    c.optimizer = std::make_shared<bp::optim::AdamW>(c.parameters, bp::optim::AdamWOptions{.lr = 3e-4 * scale});
    c.batch = [](std::uint32_t s) {
      return std::pair(class_tensor(1000 + 2 * s, {16, 128}, 96), class_tensor(1001 + 2 * s, {16, 128}, 96));
    };
  } else {
    throw std::runtime_error("unknown case " + name + ": expected tiny, mlp, cnn, resnet20, lstm, gpt or gpt12");
  }
  return c;
}

// A training step of a case, which must outlive it: (inputs, targets) to the loss.
inline auto training_step(const Case& c, bp::CompileOptions options) {
  options.mode = bp::Mode::train;
  return bp::compile(
      [&c](const bp::Tensor& x, const bp::Tensor& t) {
        const bp::Tensor loss = c.loss(c.model(x), t);
        c.optimizer->update(bp::grad(loss, c.parameters));
        return loss;
      },
      options);
}

// VmRSS, VmHWM, ... of this process, in bytes. Linux.
inline double process_status(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind(name + ":", 0) == 0) return std::stod(line.substr(name.size() + 1)) * 1024;
  throw std::runtime_error("/proc/self/status has no " + name);
}

// A step of a golden run: the loss, then the norm of each parameter's gradient; updates.
inline std::vector<bp::Tensor> golden_step(const Case& c, const bp::Tensor& x, const bp::Tensor& t) {
  const bp::Tensor loss = c.loss(c.model(x), t);
  const std::vector<bp::Tensor> grads = bp::grad(loss, c.parameters);
  std::vector<bp::Tensor> out{loss};
  for (const bp::Tensor& g : grads) out.push_back(bp::norm(g));
  c.optimizer->update(grads);
  return out;
}

// --name value, with a default.
inline std::string option(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (argv[i] == "--" + name) return argv[i + 1];
  return otherwise;
}

}  // namespace bench
