// Embedding: lookups of rows by id.
#include "bp/embedding.h"
#include "bp/ops.h"
#include "state/layer_support.h"
#include "trace/node.h"

namespace bp::nn {

Embedding::Embedding(std::int64_t n, std::int64_t dim, EmbeddingOptions options)
    : n_(n), dim_(dim), options_(std::move(options)) {
  require_size("embedding", "ids", n);
  require_size("embedding", "dimension", dim);
  if (options_.padding && (*options_.padding < 0 || *options_.padding >= n))
    fail(ErrorKind::value, "[embedding] padding: expected an id from 0 to {}, got {}", n - 1, *options_.padding);
  weight = parameter({n, dim});
}

Shape Embedding::output_shape(const Shape& in) const {
  Shape out = in;
  out.push_back(dim_);
  return out;
}

Tensor Embedding::operator()(const Tensor& ids) const {
  if (ids.dtype() != i32 && ids.dtype() != i64)
    fail(ErrorKind::dtype, "{} expected ids of dtype i32 or i64, got {}", prefix(*this), ids.type().str());
  require_values(*this, weight);
  if (ids.node()->trace == 0) require_known(ids);
  const Scope scope(scope_name());
  const Tensor y = gather(weight, ids);
  if (!options_.padding) return y;
  const Tensor padded = equal(unsqueeze(ids, -1), static_cast<double>(*options_.padding));
  return select(padded, stop_gradient(y), y);
}

void Embedding::require_known(const Tensor& ids) const {
  const std::vector<std::int64_t> values = ids.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] < 0 || values[i] >= n_)
      fail(ErrorKind::value, "{} expected ids from 0 to {}, got {} at position {} of {}", prefix(*this), n_ - 1,
           values[i], i, ids.shape());
}

std::string Embedding::describe() const {
  return fmt::format("embedding({} x {}{})", n_, dim_,
                     options_.padding ? fmt::format(", padding {}", *options_.padding) : "");
}

void Embedding::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, false);
}

void Embedding::init(Key key) {
  initialise(weight, options_.weight_init, fans_of(weight.shape()), key.fold("weight"));
  if (!options_.padding) return;
  const Tensor row = equal(iota({n_, 1}, 0), static_cast<double>(*options_.padding));
  weight.set(select(row, zeros({}, weight.dtype()), weight.get()));
}

}  // namespace bp::nn
