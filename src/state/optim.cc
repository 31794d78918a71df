// What all optimizers do: check, clip, compute the scalars of a step once, update every parameter, assign all at once.
#include "bp/optim.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::optim {

// ---- gradients -----------------------------------------------------------------------------------------------------

Tensor global_norm(std::span<const Tensor> grads) {
  Tensor total;
  for (const Tensor& g : grads) {
    const Tensor part = sum(square(g.dtype() == bf16 ? cast(g, f32) : g));
    total = total.defined() ? total + part : part;
  }
  return total.defined() ? sqrt(total) : zeros({});
}

namespace {
void require_positive(const char* what, double value) {
  if (!(value > 0)) fail(ErrorKind::value, "[{}] expected a positive limit, got {}", what, value);
}
}  // namespace

Clipped clip_by_norm(std::span<const Tensor> grads, double max_norm) {
  require_positive("clip_by_norm", max_norm);
  const Scope scope("clip_by_norm");
  Clipped out{{}, global_norm(grads)};
  const Tensor factor = minimum(max_norm / (out.norm + 1e-6), 1.0);
  const Tensor safe = select(isfinite(out.norm), factor, full({}, std::nan(""), out.norm.dtype()));
  for (const Tensor& g : grads) {
    const Tensor clipped = g * cast(safe, g.dtype());
    out.grads.push_back(clipped);
  }
  return out;
}

std::vector<Tensor> clip_by_value(std::span<const Tensor> grads, double limit) {
  require_positive("clip_by_value", limit);
  const Scope scope("clip_by_value");
  std::vector<Tensor> out;
  for (const Tensor& g : grads) out.push_back(clip(g, -limit, limit));
  return out;
}

// ---- groups
// ----------------------------------------------------------------------------------------------------------

std::function<bool(const Variable&)> name_ends_with(std::string suffix) {
  return [s = std::move(suffix)](const Variable& v) { return v.name().ends_with(s); };
}
std::function<bool(const Variable&)> name_starts_with(std::string prefix) {
  return [p = std::move(prefix)](const Variable& v) { return v.name().starts_with(p); };
}
std::function<bool(const Variable&)> rank_below(int rank) {
  return [rank](const Variable& v) { return v.shape().rank() < rank; };
}
std::function<bool(const Variable&)> among(std::span<const Variable> variables) {
  std::vector<std::shared_ptr<bp::detail::Cell>> cells;
  for (const Variable& v : variables) cells.push_back(v.cell());
  return [cells = std::move(cells)](const Variable& v) {
    return std::find(cells.begin(), cells.end(), v.cell()) != cells.end();
  };
}
Group no_decay_on_vectors() { return {.where = rank_below(2), .weight_decay = 0.0}; }

// ---- construction
// ----------------------------------------------------------------------------------------------------

namespace {
DType computed_in(DType parameter) { return parameter == bf16 ? f32 : parameter; }

void require_in(const std::string& kind, const char* what, double value, double low, double high) {
  if (value >= low && value <= high && std::isfinite(value)) return;
  if (std::isfinite(high)) fail(ErrorKind::value, "[{}] {}: expected {} to {}, got {}", kind, what, low, high, value);
  fail(ErrorKind::value, "[{}] {}: expected a finite number of {} or more, got {}", kind, what, low, value);
}
}  // namespace

Optimizer::Optimizer(std::span<const Variable> parameters, Common common) : common_(std::move(common)) {
  require_in(common_.kind, "clip_norm", common_.clip_norm, 0, INFINITY);
  require_in(common_.kind, "clip_value", common_.clip_value, 0, INFINITY);
  for (const Group& group : common_.groups) {
    if (!group.where) fail(ErrorKind::value, "[{}] a group has no predicate `where`", common_.kind);
    require_in(common_.kind, "lr_scale of a group", group.lr_scale, 0, INFINITY);
    require_in(common_.kind, "weight_decay of a group", group.weight_decay.value_or(0), 0, INFINITY);
  }
  if (parameters.empty()) fail(ErrorKind::state, "[{}] there are no parameters to optimize", common_.kind);
  for (const Variable& v : parameters) {
    if (!is_float(v.dtype()))
      fail(ErrorKind::dtype, "[{}] {}: expected a floating-point parameter, got {}", common_.kind, v.name(),
           v.type().str());
    const auto in = [&v](const Group& group) { return group.where(v); };
    const auto at = std::find_if(common_.groups.begin(), common_.groups.end(), in);
    group_of_.push_back(at == common_.groups.end() ? -1 : static_cast<int>(at - common_.groups.begin()));
    parameters_.push_back(v.alias());
  }
  moments_.resize(parameters_.size());
  lr = hyperparameter("lr", common_.lr, 0, INFINITY);
  weight_decay = hyperparameter("weight_decay", common_.weight_decay, 0, INFINITY, true);
  step = Variable(Tensor::from<std::int64_t>({0}, Shape{}), false);
  step.set_name("optim.step");
}

Variable Optimizer::hyperparameter(const char* name, double value, double low, double high, bool optional) {
  require_in(common_.kind, name, value, low, high);
  if (optional && value == 0) return {};
  Variable variable(Tensor::from({value}, Shape{}), false);
  variable.set_name(std::string("optim.") + name);
  hyperparameters_.emplace_back(variable.name(), variable.alias());
  return variable;
}

std::string Optimizer::name_of_parameter(std::size_t i) const {
  const std::string& name = parameters_[i].name();
  return name.empty() ? std::to_string(i) : name;
}

void Optimizer::add_moment(const char* name, double fill) {
  moment_names_.push_back(name);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Variable& p = parameters_[i];
    const Type type{computed_in(p.dtype()), p.shape()};
    Variable moment(Tensor::from_buffer(Buffer::allocate(type.bytes()), type.dtype, type.shape), false);
    moment.set(fill);
    moment.set_name("optim." + name_of_parameter(i) + "." + name);
    moments_[i].push_back(std::move(moment));
  }
}

void Optimizer::set_lr(double rate) {
  require_in(common_.kind, "lr", rate, 0, INFINITY);
  lr.set(rate);
}

std::vector<nn::NamedVariable> Optimizer::state() const {
  std::vector<nn::NamedVariable> all;
  for (const nn::NamedVariable& h : hyperparameters_) all.emplace_back(h.name, h.variable.alias());
  all.emplace_back(step.name(), step.alias());
  for (const auto& moments : moments_)
    for (const Variable& m : moments) all.emplace_back(m.name(), m.alias());
  return all;
}

// ---- a step
// ----------------------------------------------------------------------------------------------------------

std::vector<Tensor> Optimizer::checked(std::span<const Tensor> grads) const {
  if (grads.size() != parameters_.size())
    fail(ErrorKind::state, "[{}] expected {} gradients, one a parameter, got {}", common_.kind, parameters_.size(),
         grads.size());
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const Variable& p = parameters_[i];
    if (!grads[i].defined()) fail(ErrorKind::state, "[{}] {}: undefined gradient", common_.kind, name_of_parameter(i));
    if (grads[i].shape() != p.shape())
      fail(ErrorKind::shape, "[{}] {}: expected a gradient {}, got {}", common_.kind, name_of_parameter(i), p.shape(),
           grads[i].shape());
    const DType dtype = computed_in(p.dtype());
    out.push_back(grads[i].dtype() == dtype ? grads[i] : cast(grads[i], dtype));
  }
  return out;
}

Tensor Optimizer::decay_of(std::size_t i, DType dtype) const {
  const Group* group = group_of_[i] < 0 ? nullptr : &common_.groups[static_cast<std::size_t>(group_of_[i])];
  if (group != nullptr && group->weight_decay)
    return *group->weight_decay == 0 ? Tensor() : scalar(*group->weight_decay, dtype);
  return weight_decay.defined() ? cast(weight_decay, dtype) : Tensor();
}

Tensor Optimizer::update(std::span<const Tensor> gradients) {
  std::vector<Tensor> grads = checked(gradients);
  const Scope scope(common_.kind);
  if (common_.clip_value > 0) grads = clip_by_value(grads, common_.clip_value);
  Tensor norm;
  if (common_.clip_norm > 0) {
    Clipped clipped = clip_by_norm(grads, common_.clip_norm);
    grads = std::move(clipped.grads);
    norm = clipped.norm;
  }
  const Tensor t = step.get() + 1;
  std::map<std::pair<double, DType>, std::vector<Tensor>> prepared;  // the scalars, by rate scale and dtype
  std::vector<Variable> targets;
  std::vector<Tensor> values;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const DType dtype = grads[i].dtype();
    const double scale = group_of_[i] < 0 ? 1 : common_.groups[static_cast<std::size_t>(group_of_[i])].lr_scale;
    const auto [at, fresh] = prepared.try_emplace({scale, dtype});
    if (fresh)
      for (const Tensor& s : scalars(scale == 1 ? lr.get() : lr.get() * scale, cast(t, f64)))
        at->second.push_back(cast(s, dtype));
    const Variable& p = parameters_[i];
    std::vector<Tensor> moments;
    for (const Variable& m : moments_[i]) moments.push_back(m.get());
    const Tensor value = p.dtype() == dtype ? p.get() : cast(p, dtype);
    std::vector<Tensor> next = update_one({value, grads[i], decay_of(i, dtype), moments, at->second});
    targets.push_back(p.alias());
    values.push_back(p.dtype() == dtype ? next[0] : cast(next[0], p.dtype()));
    for (std::size_t k = 0; k < moments_[i].size(); ++k) {
      targets.push_back(moments_[i][k].alias());
      values.push_back(next[k + 1]);
    }
  }
  targets.push_back(step.alias());
  values.push_back(t);
  assign(targets, values);
  return norm;
}

Tensor Optimizer::decayed(const Slot& slot) { return slot.decay.defined() ? slot.g + slot.decay * slot.p : slot.g; }

}  // namespace bp::optim
