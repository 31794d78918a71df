// What the tests of the Trainer share: a small classifier of images, a line to fit, folders, bits to compare.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "bp/datasets.h"
#include "bp/error.h"
#include "bp/ops.h"
#include "bp/train.h"
#include "message_of.h"

namespace bp::train_test {

using train::Options;
using train::Stop;
using train::Task;

// A folder of this process, gone with it: another one may run the same tests.
struct ScratchFolder {
  std::string path = ::testing::TempDir() + "bp_train_test." + std::to_string(getpid());
  ScratchFolder() { std::filesystem::create_directories(path); }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

inline std::string scratch(const std::string& name) {
  static const ScratchFolder folder;
  return folder.path + "/" + name;
}

inline std::string empty_folder(const std::string& name) {
  std::filesystem::remove_all(scratch(name));
  return scratch(name);
}

inline const data::ArrayDataset& images() {
  static const std::string folder = "/usr/share/datasets/fashion-mnist/train-";
  static const data::ArrayDataset all =
      data::load_idx_pair(folder + "images-idx3-ubyte.gz", folder + "labels-idx1-ubyte.gz", 10).scaled();
  return all;
}

inline std::shared_ptr<const data::Source> first_images() {
  return std::make_shared<const data::ArrayDataset>(images().take(512));
}

struct Classifier {
  nn::Sequential model{nn::Flatten{}, nn::Linear{784, 16}, nn::ReLU{}, nn::Dropout{0.1}, nn::Linear{16, 10}};
  optim::Adam optimizer;
  data::DataLoader loader;
  explicit Classifier(double lr = 3e-3, std::shared_ptr<const data::Source> source = first_images(), int threads = 1)
      : optimizer((nn::init(model, Key{1}), model), {.lr = lr}),
        loader(std::move(source), {.batch_size = 64, .key = Key{2}, .threads = threads}) {}
  train::Trainer trainer(Options options) {
    options.threads = 1;
    return train::Trainer(
        model, [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); }, optimizer, std::move(options));
  }
};

// Every bit of the model.
inline std::vector<std::string> bits(const nn::Sequential& model) {
  std::vector<std::string> all;
  for (const nn::NamedVariable& v : nn::state(model)) {
    const Buffer b = v.variable.get().buffer();
    all.emplace_back(b.as<char>(), v.variable.type().bytes());
  }
  return all;
}

template <class F> std::string message_of(F&& f, ErrorKind kind) { return bp::message_of(kind, f); }

// y = 2 x1 - x2 + 1
inline data::ArrayDataset line(std::int64_t n) {
  std::vector<float> x, y;
  Rng rng(Key{5});
  for (std::int64_t i = 0; i < n; ++i) {
    x.push_back(static_cast<float>(rng.normal()));
    x.push_back(static_cast<float>(rng.normal()));
    y.push_back(2 * x[x.size() - 2] - x.back() + 1);
  }
  return data::ArrayDataset(Array::from(x, {n, 2}), Array::from(y, {n, 1}));
}

inline Tensor mse(const Tensor& y, const Tensor& t) { return squared_error(y, t); }

}  // namespace bp::train_test
