// Modules: what has parameters. A module is a Layer (bp/layers.h), a struct that lists its fields by BP_FIELDS, or a
// std::vector, std::array, std::optional or std::unique_ptr of modules.
//
//   struct Net {
//     nn::Linear hidden{784, 128}, head{128, 10};
//     Tensor operator()(const Tensor& x) const { return head(relu(hidden(x))); }
//     BP_FIELDS(Net, hidden, head)
//   };
//   Net net;
//   nn::init(net, Key{42});
//   assert(nn::parameter_count(net) == 101770 && nn::state(net)[0].name == "hidden.weight");
//
// Names are paths: "hidden.weight", "blocks.0.conv1.bias". Copying a model copies its state (Variables do); moving
// keeps identity, so that optimizers and compiled steps made before stay valid.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bp/grad.h"
#include "bp/rng.h"
#include "bp/tensor.h"
#include "bp/variable.h"

// BP_FIELDS(Type, field...): lists every data member of a struct without bases. A forgotten field does not compile
// ("only 2 names provided for structured binding, while 'Net' decomposes into 3 elements"). Fields that are numbers,
// enums, strings or vectors of those count as options and are skipped. The struct may have `void init(Key)`, called by
// nn::init after its fields were initialised.
#define BP_FIELDS(Self, ...)                                                                                     \
  auto bp_fields() noexcept {                                                                                    \
    static_assert(std::is_same_v<std::remove_cvref_t<decltype(*this)>, Self>, "BP_FIELDS names another struct"); \
    return std::tie(__VA_ARGS__);                                                                                \
  }                                                                                                              \
  static constexpr const char* bp_field_names() noexcept { return #__VA_ARGS__; }                                \
  static void bp_every_field_must_be_listed(const Self& bp_self) noexcept {                                      \
    [[maybe_unused]] const auto& [__VA_ARGS__] = bp_self;                                                        \
  }

namespace bp::nn {

class Layer;

// A Variable of a model with its path. Move-only: copying a Variable would copy its state.
struct NamedVariable {
  std::string name;   // the path: "blocks.0.conv1.bias"
  Variable variable;  // a handle on the model's cell
  // The weight of a Linear or Conv layer, [k.., in, out] here and [out, in, k..] in PyTorch.
  bool is_kernel = false;

  // n: the path; kernel: is_kernel.
  NamedVariable(std::string n, Variable v, bool kernel = false)
      : name(std::move(n)), variable(std::move(v)), is_kernel(kernel) {}
  NamedVariable(NamedVariable&&) noexcept = default;
  NamedVariable& operator=(NamedVariable&&) noexcept = default;
};

// What is called for each part of a module, in order of the fields, depth first.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void on_layer(const std::string& /*path*/, Layer& /*layer*/) {}  // before its Variables and sublayers
  // With the path of its layer in front.
  virtual void on_variable(const std::string& /*path*/, Variable& /*variable*/, bool /*is_kernel*/) {}
  // A struct with its own init(Key), after its fields.
  virtual void on_init(const std::string& /*path*/, const std::function<void(Key)>& /*init*/) {}
};

// A layer: one input, one output, perhaps parameters. Layers of one's own derive from LayerOf<Self>.
class Layer {
 public:
  virtual ~Layer() = default;
  // Throws Error(shape) "[kind] path: expected ..., got ..." for an input that does not fit, and Error(state) when the
  // parameters have no values yet (nn::init or load_state gives them some).
  virtual Tensor operator()(const Tensor& x) const = 0;
  // The shape that operator() would give, without computing; the same Error(shape).
  virtual Shape output_shape(const Shape& in) const = 0;
  virtual const char* kind() const noexcept = 0;                  // "conv2d": opens messages
  virtual std::string describe() const { return kind(); }         // with sizes and options, for listings
  virtual std::unique_ptr<Layer> clone() const = 0;               // a deep copy
  virtual void visit(const std::string& path, Visitor& visitor);  // own Variables and sublayers; none by default
  virtual void init(Key key);                                     // own Variables (not sublayers); nothing by default

  // Its place in the model ("block1.conv2"), known after nn::init, nn::set_names or an optimizer was made.
  const std::string& path() const noexcept { return path_; }
  void set_path(std::string path) { path_ = std::move(path); }  // nn::set_names does

 protected:
  Layer() = default;
  Layer(const Layer&) = default;
  Layer(Layer&&) noexcept = default;
  Layer& operator=(const Layer&) = default;
  Layer& operator=(Layer&&) noexcept = default;
  // "conv2d" or "block1.conv2" if known: the scope under which operator() records.
  std::string scope_name() const { return path_.empty() ? kind() : path_; }

 private:
  std::string path_;
};

// A layer with clone() made of its copy constructor: class Mine : public LayerOf<Mine>.
template <class Derived> class LayerOf : public Layer {
 public:
  // A deep copy.
  std::unique_ptr<Layer> clone() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }
};

// "a" + "b" = "a.b"; "" + "b" = "b".
std::string join_path(std::string_view path, std::string_view name);

namespace detail {

template <class T>
concept HasFields = requires(T& t) {
  t.bp_fields();
  T::bp_field_names();
};

template <class T> struct Inner {};  // `type`: the element of a container of modules
template <class T, class A> struct Inner<std::vector<T, A>> { using type = T; };
template <class T, std::size_t N> struct Inner<std::array<T, N>> { using type = T; };
template <class T> struct Inner<std::optional<T>> { using type = T; };
template <class T, class D> struct Inner<std::unique_ptr<T, D>> { using type = T; };
template <class T> struct IsPointerLike : std::false_type {};
template <class T> struct IsPointerLike<std::optional<T>> : std::true_type {};
template <class T, class D> struct IsPointerLike<std::unique_ptr<T, D>> : std::true_type {};

template <class T> constexpr bool is_module() {
  if constexpr (std::is_base_of_v<Layer, T> || HasFields<T>)
    return true;
  else if constexpr (requires { typename Inner<T>::type; })
    return is_module<typename Inner<T>::type>();
  else
    return false;
}
template <class T> constexpr bool is_option() {
  if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, std::string> ||
                std::is_same_v<T, Shape>)
    return true;
  else if constexpr (requires { typename Inner<T>::type; })
    return is_option<typename Inner<T>::type>();
  else
    return false;
}
template <class T> constexpr bool holds_variables() {
  if constexpr (std::is_same_v<T, Variable> || is_module<T>())
    return true;
  else if constexpr (requires { typename Inner<T>::type; })
    return holds_variables<typename Inner<T>::type>();
  else
    return false;
}

// The next name of a list "conv1, bn1, head".
std::string_view next_field(std::string_view& names);
void walk_layer(const std::string& path, Layer& layer, Visitor& visitor);

template <class T> void walk(const std::string& path, T& x, Visitor& visitor);

template <class T> void walk_fields(const std::string& path, T& module, Visitor& visitor) {
  std::string_view names = T::bp_field_names();
  std::apply([&](auto&... field) { (walk(join_path(path, next_field(names)), field, visitor), ...); },
             module.bp_fields());
  if constexpr (requires { module.init(Key{}); }) visitor.on_init(path, [&module](Key key) { module.init(key); });
}

template <class T> void walk(const std::string& path, T& x, Visitor& visitor) {
  if constexpr (std::is_same_v<T, Variable>) {
    if (x.defined()) visitor.on_variable(path, x, false);
  } else if constexpr (std::is_base_of_v<Layer, T>) {
    walk_layer(path, x, visitor);
  } else if constexpr (HasFields<T>) {
    walk_fields(path, x, visitor);
  } else if constexpr (holds_variables<T>()) {
    if constexpr (IsPointerLike<T>::value) {
      if (x) walk(path, *x, visitor);
    } else {
      std::size_t i = 0;
      for (auto& element : x) walk(join_path(path, std::to_string(i++)), element, visitor);
    }
  } else {
    static_assert(is_option<T>(),
                  "BP_FIELDS: a field must be a Variable, a layer, a struct with BP_FIELDS, a vector, array, optional "
                  "or unique_ptr of those, or an option (number, enum, string, Shape)");
  }
}

using Walk = std::function<void(Visitor&)>;
template <class M> Walk walk_of(const M& model) {
  return [&model](Visitor& visitor) { walk(std::string(), const_cast<M&>(model), visitor); };
}
std::vector<Variable> parameters(const Walk& walk);
std::vector<NamedVariable> state(const Walk& walk);
void for_each_layer(const Walk& walk, const std::function<void(const std::string&, Layer&)>& f);
void set_names(const Walk& walk);
void set_dtype(const Walk& walk, DType dtype);
void init(const Walk& walk, Key key, DType dtype);

}  // namespace detail

template <class T>
concept Module = detail::is_module<T>();

// The trainable Variables, in order of the fields; a Variable that occurs twice (tied weights) is listed once. The
// handles share the model's cells.
template <Module M> std::vector<Variable> parameters(const M& model) {
  return detail::parameters(detail::walk_of(model));
}
// All Variables (parameters, running statistics, random states) with their paths; tied ones under their first name.
template <Module M> std::vector<NamedVariable> state(const M& model) { return detail::state(detail::walk_of(model)); }

// Number of scalars in parameters(model).
template <Module M> std::int64_t parameter_count(const M& model) {
  std::int64_t n = 0;
  for (const Variable& v : nn::parameters(model)) n += v.shape().numel();
  return n;
}

// f(path, layer) for every Layer, outer ones first.
template <Module M, class F> void for_each_layer(M& model, F&& f) {
  detail::for_each_layer(detail::walk_of(model), std::forward<F>(f));
}

// Tells every layer and Variable its path.
template <Module M> void set_names(M& model) { detail::set_names(detail::walk_of(model)); }

// Makes the floating-point Variables `dtype` (values are converted). They become new cells: call it before optimizers
// and compiled steps are made.
template <Module M> void set_dtype(M& model, DType dtype) { detail::set_dtype(detail::walk_of(model), dtype); }

// Names everything, makes floating-point Variables `dtype`, and gives every layer its first values, from
// key.fold(path): adding a layer changes no other layer's values. Variables that a struct holds itself keep the values
// they were made with.
template <Module M> void init(M& model, Key key, DType dtype = f32) {
  detail::init(detail::walk_of(model), key, dtype);
}

}  // namespace bp::nn

namespace bp {

// d loss / d p for each p of nn::parameters(model), in that order: what Optimizer::update takes.
template <nn::Module M> std::vector<Tensor> grad(const Tensor& loss, const M& model) {
  const std::vector<Variable> parameters = nn::parameters(model);
  return grad(loss, std::span<const Variable>(parameters));
}

}  // namespace bp
