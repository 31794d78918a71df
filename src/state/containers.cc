// Layers made of layers: Sequential and Residual.
#include "bp/layers.h"
#include "state/layer_support.h"

namespace bp::nn {

Sequential::Sequential(const Sequential& other) : LayerOf(other), names_(other.names_) {
  layers_.reserve(other.layers_.size());
  for (const auto& layer : other.layers_) layers_.push_back(layer->clone());
}

Sequential& Sequential::operator=(const Sequential& other) {
  if (this != &other) *this = Sequential(other);
  return *this;
}

Sequential& Sequential::push(std::string name, std::unique_ptr<Layer> layer) {
  if (name.empty()) name = std::to_string(layers_.size());
  if (name.find('.') != std::string::npos)
    fail(ErrorKind::value, "[sequential] the layer name \"{}\" contains a dot, which separates paths", name);
  if (std::find(names_.begin(), names_.end(), name) != names_.end())
    fail(ErrorKind::value, "[sequential] there is a layer \"{}\" already", name);
  if (layer->path().empty()) layer->set_path(name);  // until the whole model is named
  names_.push_back(std::move(name));
  layers_.push_back(std::move(layer));
  return *this;
}

Layer& Sequential::at(std::size_t i) const {
  if (i >= layers_.size()) fail(ErrorKind::value, "{} expected a layer below {}, got {}", prefix(*this), size(), i);
  return *layers_[i];
}

const std::string& Sequential::name(std::size_t i) const {
  at(i);
  return names_[i];
}

Tensor Sequential::operator()(const Tensor& x) const {
  Tensor y = x;
  for (const auto& layer : layers_) y = (*layer)(y);
  return y;
}

Shape Sequential::output_shape(const Shape& in) const {
  Shape shape = in;
  for (const auto& layer : layers_) shape = layer->output_shape(shape);
  return shape;
}

std::string Sequential::describe() const { return fmt::format("sequential({} layers)", size()); }

void Sequential::visit(const std::string& path, Visitor& visitor) {
  for (std::size_t i = 0; i < layers_.size(); ++i) detail::walk_layer(join_path(path, names_[i]), *layers_[i], visitor);
}

Tensor Residual::operator()(const Tensor& x) const {
  const Tensor y = inner_(x), skip = shortcut_ ? (*shortcut_)(x) : x;
  require_same(y.shape(), skip.shape(), x.shape());
  const Scope scope(scope_name());
  return y + skip;
}

Shape Residual::output_shape(const Shape& in) const {
  const Shape out = inner_.output_shape(in), skip = shortcut_ ? shortcut_->output_shape(in) : in;
  require_same(out, skip, in);
  return out;
}

void Residual::require_same(const Shape& inner, const Shape& shortcut, const Shape& in) const {
  if (inner != shortcut)
    shape_error(*this, fmt::format("the shortcut to give {} like the inner layers (input {})", inner, in), shortcut);
}

std::string Residual::describe() const {
  return fmt::format("residual({} layers{})", inner_.size(), shortcut_ ? ", projected" : "");
}

void Residual::visit(const std::string& path, Visitor& visitor) {
  detail::walk_layer(join_path(path, "inner"), inner_, visitor);
  if (shortcut_) detail::walk_layer(join_path(path, "shortcut"), *shortcut_, visitor);
}

}  // namespace bp::nn
