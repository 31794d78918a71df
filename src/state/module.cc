// Walking modules: names, parameters, first values. Called through the templates of bp/module.h.
#include "bp/module.h"

#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::nn {

void Layer::visit(const std::string&, Visitor&) {}
void Layer::init(Key) {}

std::string join_path(std::string_view path, std::string_view name) {
  std::string joined(path);
  if (!joined.empty()) joined += '.';
  return joined += name;
}

namespace detail {

std::string_view next_field(std::string_view& names) {
  const auto comma = names.find(',');
  std::string_view field = names.substr(0, comma);
  names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
  const auto first = field.find_first_not_of(' '), last = field.find_last_not_of(' ');
  return field.substr(first, last - first + 1);
}

void walk_layer(const std::string& path, Layer& layer, Visitor& visitor) {
  visitor.on_layer(path, layer);
  layer.visit(path, visitor);
}

namespace {

// Passes on each cell once.
class Variables : public Visitor {
 public:
  void on_variable(const std::string& path, Variable& variable, bool is_kernel) final {
    if (seen_.insert(variable.cell().get()).second) first(path, variable, is_kernel);
  }
  virtual void first(const std::string& path, Variable& variable, bool is_kernel) = 0;

 private:
  std::unordered_set<const void*> seen_;
};

class Naming final : public Variables {
 public:
  void on_layer(const std::string& path, Layer& layer) override { layer.set_path(path); }
  void first(const std::string& path, Variable& variable, bool) override { variable.set_name(path); }
};

class Parameters final : public Variables {
 public:
  void first(const std::string&, Variable& variable, bool) override {
    if (variable.trainable()) found.push_back(variable.alias());
  }
  std::vector<Variable> found;
};

class State final : public Variables {
 public:
  void first(const std::string& path, Variable& variable, bool is_kernel) override {
    found.emplace_back(path, variable.alias(), is_kernel);
  }
  std::vector<NamedVariable> found;
};

class Layers final : public Visitor {
 public:
  explicit Layers(const std::function<void(const std::string&, Layer&)>& f) : f_(f) {}
  void on_layer(const std::string& path, Layer& layer) override { f_(path, layer); }

 private:
  const std::function<void(const std::string&, Layer&)>& f_;
};

// Tied Variables stay tied: their handles get the same new cell.
class Casting final : public Visitor {
 public:
  explicit Casting(DType dtype) : dtype_(dtype) {}
  void on_variable(const std::string&, Variable& variable, bool) override {
    if (!is_float(variable.dtype()) || variable.dtype() == dtype_) return;
    const auto [at, fresh] = made_.try_emplace(variable.cell());
    if (fresh) at->second = converted(variable);
    variable = at->second.alias();
  }

 private:
  Variable converted(const Variable& from) const {
    const Tensor value = from.get();
    const auto n = static_cast<std::size_t>(value.numel());
    Buffer buffer = Buffer::allocate(n * size_of(dtype_));
    const std::vector<double> values = value.to_vector<double>();
    dispatch(dtype_, [&](auto zero) {
      using T = decltype(zero);
      for (std::size_t i = 0; i < n; ++i) buffer.as_mutable<T>()[i] = static_cast<T>(values[i]);
    });
    const Tensor to = Tensor::from_buffer(std::move(buffer), dtype_, value.shape());
    Variable variable(to, from.trainable());
    variable.set_name(from.name());
    if (from.version() > 0) variable.set(to);  // it was given values: so it stays
    return variable;
  }
  DType dtype_;
  std::unordered_map<std::shared_ptr<bp::detail::Cell>, Variable> made_;
};

class Initialising final : public Visitor {
 public:
  explicit Initialising(Key key) : key_(key) {}
  void on_layer(const std::string& path, Layer& layer) override { layer.init(key_.fold(path)); }
  void on_init(const std::string& path, const std::function<void(Key)>& init) override { init(key_.fold(path)); }

 private:
  Key key_;
};

}  // namespace

std::vector<Variable> parameters(const Walk& walk) {
  Parameters visitor;
  walk(visitor);
  return std::move(visitor.found);
}

std::vector<NamedVariable> state(const Walk& walk) {
  State visitor;
  walk(visitor);
  return std::move(visitor.found);
}

void for_each_layer(const Walk& walk, const std::function<void(const std::string&, Layer&)>& f) {
  Layers visitor(f);
  walk(visitor);
}

void set_names(const Walk& walk) {
  Naming visitor;
  walk(visitor);
}

void set_dtype(const Walk& walk, DType dtype) {
  if (!is_float(dtype)) fail(ErrorKind::dtype, "[nn] parameters are f64, f32 or bf16, got {}", name_of(dtype));
  Casting visitor(dtype);
  walk(visitor);
}

void init(const Walk& walk, Key key, DType dtype) {
  set_dtype(walk, dtype);
  set_names(walk);
  Initialising visitor(key);
  walk(visitor);
}

}  // namespace detail
}  // namespace bp::nn
