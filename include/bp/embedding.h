// Embedding: a table of vectors looked up by integer ids. Part of bp/layers.h.
//
//   nn::Embedding table(1000, 16);
//   nn::init(table, Key{42});
//   assert(table(Tensor::from<std::int64_t>({3, 1, 4})).shape() == Shape({3, 16}));
#pragma once

#include <optional>
#include <string>

#include "bp/init.h"
#include "bp/module.h"

namespace bp::nn {

// How an Embedding is made.
struct EmbeddingOptions {
  std::optional<std::int64_t> padding =
      std::nullopt;                              // the id whose row starts at zero and learns nothing from lookups
  Initializer weight_init = init::normal(0, 1);  // of the whole table
};

// ids [..], i32 or i64 in [0, n) -> weight[ids] [.., dim]. An id outside throws Error(value) naming position and value:
// at once outside compile, before the step runs where the ids are an argument of it; ids that a step computes give NaN.
class Embedding final : public LayerOf<Embedding> {
 public:
  // Throws Error(value) for sizes below 1 and a padding id outside [0, n).
  Embedding(std::int64_t n, std::int64_t dim, EmbeddingOptions options = {});
  Tensor operator()(const Tensor& ids) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "embedding"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight;  // [n, dim]

 private:
  void require_known(const Tensor& ids) const;
  std::int64_t n_, dim_;
  EmbeddingOptions options_;
};

}  // namespace bp::nn
