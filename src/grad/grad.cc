// The reverse walk: cotangents flow from the outputs back to the targets, each op's rule adding ordinary nodes.
#include "bp/grad.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "bp/ops.h"
#include "trace/node.h"

namespace bp {

using detail::Node;
using ir::OpId;

namespace {

std::string place(const Node& n) {
  const std::string& path = ir::scope_path(n.scope);
  return fmt::format("[{}]{}{}", ir::name_of(n.op), path.empty() ? "" : " ", path);
}

bool stops_gradient(const Node& n) { return (ir::op_def(n.op).flags & ir::kZeroGradient) != 0; }

// While it lives, recorded nodes belong to the backward pass and to the scope of the node being differentiated.
class BackwardScope {
 public:
  BackwardScope() : before_(detail::thread_state()) { detail::thread_state().backward = true; }
  ~BackwardScope() {
    detail::thread_state().backward = before_.backward;
    detail::thread_state().scope = before_.scope;
  }
  BackwardScope(const BackwardScope&) = delete;
  BackwardScope& operator=(const BackwardScope&) = delete;
  void enter(const Node& n) { detail::thread_state().scope = n.scope; }

 private:
  detail::ThreadState before_;
};

class ReverseWalk {
 public:
  ReverseWalk(std::span<const Tensor> ys, std::span<const Tensor> xs) : xs_(xs) {
    for (const Tensor& x : xs) targets_.insert(x.node().get());
    collect(ys);
    mark();
    for (const Tensor& y : ys) blocked_ |= marks_.at(y.node().get()).reaches && !marks_.at(y.node().get()).active;
  }

  std::vector<Tensor> run(std::span<const Tensor> ys, std::span<const Tensor> cotangents) {
    BackwardScope scope;
    for (std::size_t i = 0; i < ys.size(); ++i) accumulate(ys[i], cotangents[i]);
    for (auto it = nodes_.rbegin(); it != nodes_.rend(); ++it) {
      scope.enter(**it);
      step(**it);
    }
    std::vector<Tensor> out;
    for (const Tensor& x : xs_) out.push_back(result(x));
    return out;
  }

  bool reaches(const Tensor& x) const { return marks_.count(x.node().get()) != 0; }
  bool reaches_old_version(const detail::Cell* cell) const {
    return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node* n) { return n->cell.lock().get() == cell; });
  }

 private:
  struct Marks {
    bool reaches = false;  // some path leads to a target
    bool active = false;   // one of them through floating values only
  };

  void collect(std::span<const Tensor> ys) {
    std::vector<Node*> stack;
    const auto visit = [&](const Tensor& t) {
      if (marks_.try_emplace(t.node().get()).second) stack.push_back(t.node().get());
    };
    for (const Tensor& y : ys) visit(y);
    while (!stack.empty()) {
      Node* n = stack.back();
      stack.pop_back();
      nodes_.push_back(n);
      released_ |= n->released;
      for (const Tensor& t : n->inputs) visit(t);
    }
    std::sort(nodes_.begin(), nodes_.end(), [](const Node* a, const Node* b) { return a->serial < b->serial; });
  }

  void mark() {
    for (const Node* n : nodes_) {
      Marks& m = marks_.at(n);
      if (targets_.count(n) != 0) m = {true, true};
      if (stops_gradient(*n)) continue;
      const bool floating =
          std::any_of(n->types.begin(), n->types.end(), [](const Type& t) { return is_float(t.dtype); });
      for (std::size_t i = 0; i < n->inputs.size(); ++i) {
        const Tensor& t = n->inputs[i];
        const Marks& in = marks_.at(t.node().get());
        // The condition of a select chooses, and a comparison inside a gradient rule (the mask of relu) is flat almost
        // everywhere: zero.
        if (n->op == OpId::select && i == 0) continue;
        m.reaches |= in.reaches && (floating || !n->backward);
        if (!in.active || !is_float(t.dtype())) continue;
        m.active |= floating;
        if (!floating && !n->backward && blocker_ == nullptr) blocker_ = n;
      }
    }
  }

  void accumulate(const Tensor& value, const Tensor& cotangent) {
    if (!cotangent.defined()) return;
    auto& list = cotangents_[value.node().get()];
    list.resize(value.node()->types.size());
    Tensor& at = list[value.output()];
    at = at.defined() ? add(at, cotangent) : cotangent;
  }

  void step(const Node& n) {
    const auto found = cotangents_.find(&n);
    if (found == cotangents_.end() || n.inputs.empty() || stops_gradient(n)) return;
    const std::size_t count = n.inputs.size();
    const std::unique_ptr<bool[]> needed(new bool[count]);
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
      needed[i] = is_float(n.inputs[i].dtype()) && marks_.at(n.inputs[i].node().get()).active;
      any |= needed[i];
    }
    if (!any) return;
    const ir::OpDef& def = ir::op_def(n.op);
    if (def.vjp == nullptr) fail(ErrorKind::gradient, "{} has no gradient", place(n));
    std::vector<Tensor> outputs;
    const auto self = std::const_pointer_cast<Node>(n.shared_from_this());
    for (std::uint32_t k = 0; k < n.types.size(); ++k) outputs.emplace_back(self, k);
    const std::vector<Tensor> result = def.vjp({n.inputs, outputs, found->second, n.attrs, {needed.get(), count}});
    for (std::size_t i = 0; i < count && i < result.size(); ++i)
      if (needed[i]) flow(n, n.inputs[i], result[i]);
  }

  void flow(const Node& n, const Tensor& input, const Tensor& cotangent) {
    if (!cotangent.defined()) return;
    if (!(cotangent.type() == input.type()))
      fail(ErrorKind::gradient, "{} its rule returned a cotangent {} for an input {}", place(n), cotangent.type().str(),
           input.type().str());
    accumulate(input, cotangent);
  }

  Tensor result(const Tensor& x) {
    const auto found = cotangents_.find(x.node().get());
    if (found != cotangents_.end() && found->second[x.output()].defined()) return found->second[x.output()];
    if (marks_.count(x.node().get()) == 0) {
      if (released_)
        fail(ErrorKind::gradient,
             "[grad] the history between the result and this tensor was released when a value was read: call grad "
             "before item() or "
             "data(), or mark the tensor with watch()");
    } else if (blocker_ != nullptr && blocked_) {
      fail(ErrorKind::gradient, "{} has no gradient, and the result depends on the tensor only through it",
           place(*blocker_));
    }
    return zeros_like(x);
  }

  std::span<const Tensor> xs_;
  std::unordered_set<const Node*> targets_;
  std::vector<const Node*> nodes_;
  std::unordered_map<const Node*, Marks> marks_;
  std::unordered_map<const Node*, std::vector<Tensor>> cotangents_;
  const Node* blocker_ = nullptr;
  bool released_ = false;
  bool blocked_ = false;  // a result reaches the targets, but only through operations without a gradient
};

void check_loss(const Tensor& loss) {
  if (!is_float(loss.dtype()) || loss.numel() != 1)
    fail(ErrorKind::gradient, "[grad] expected a loss that is one floating number, got {}", loss.type().str());
}

// x under a new node, so that a function is differentiated by its argument only, and its history survives evaluation.
Tensor fresh(const Tensor& x) {
  Tensor y = detail::record1(OpId::reshape, {x}, {{"shape", ir::to_ints(x.shape())}});
  y.node()->tracked = true;
  return y;
}
std::vector<Tensor> fresh(std::span<const Tensor> xs) {
  std::vector<Tensor> out;
  for (const Tensor& x : xs) out.push_back(fresh(x));
  return out;
}

}  // namespace

std::vector<Tensor> vjp(std::span<const Tensor> ys, std::span<const Tensor> xs, std::span<const Tensor> cotangents) {
  if (ys.size() != cotangents.size())
    fail(ErrorKind::gradient, "[vjp] {} outputs but {} cotangents", ys.size(), cotangents.size());
  for (std::size_t i = 0; i < ys.size(); ++i)
    if (cotangents[i].defined() && !(cotangents[i].type() == ys[i].type()))
      fail(ErrorKind::gradient, "[vjp] output {} is {}, its cotangent {}", i, ys[i].type().str(),
           cotangents[i].type().str());
  return ReverseWalk(ys, xs).run(ys, cotangents);
}

std::vector<Tensor> grad(const Tensor& loss, std::span<const Tensor> xs) {
  check_loss(loss);
  const Tensor one = ones_like(loss);
  return vjp(std::span(&loss, 1), xs, std::span(&one, 1));
}

std::vector<Tensor> grad(const Tensor& loss, std::span<const Variable> xs) {
  check_loss(loss);
  std::vector<Tensor> values;
  for (const Variable& v : xs) values.push_back(v.get());
  const Tensor one = ones_like(loss);
  ReverseWalk walk(std::span(&loss, 1), values);
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!walk.reaches(values[i]) && walk.reaches_old_version(xs[i].cell().get()))
      fail(ErrorKind::gradient, "[grad] {}: it was assigned after the loss was computed; call grad before the update",
           xs[i].name().empty() ? "a variable" : xs[i].name());
  return walk.run(std::span(&loss, 1), std::span(&one, 1));
}

Tensor grad(const Tensor& loss, const Tensor& x) { return grad(loss, std::span(&x, 1))[0]; }
Tensor grad(const Tensor& loss, const Variable& x) { return grad(loss, std::span(&x, 1))[0]; }

ValueAndGrad value_and_grad(const std::function<Tensor(std::span<const Tensor>)>& f, std::span<const Tensor> xs) {
  const std::vector<Tensor> in = fresh(xs);
  const Tensor value = f(in);
  return {value, grad(value, in)};
}

std::pair<std::vector<Tensor>, std::vector<Tensor>> jvp(const Function& f, std::span<const Tensor> xs,
                                                        std::span<const Tensor> vs) {
  if (xs.size() != vs.size()) fail(ErrorKind::gradient, "[jvp] {} inputs but {} directions", xs.size(), vs.size());
  const std::vector<Tensor> in = fresh(xs);
  std::vector<Tensor> ys = f(in), us;
  for (const Tensor& y : ys) us.push_back(is_float(y.dtype()) ? zeros_like(y) : Tensor());
  std::vector<Tensor> outputs, dummies;  // only floating outputs carry tangents
  for (std::size_t i = 0; i < ys.size(); ++i)
    if (us[i].defined()) {
      outputs.push_back(ys[i]);
      dummies.push_back(us[i]);
    }
  const std::vector<Tensor> g = vjp(outputs, in, dummies);
  const std::vector<Tensor> tangents = vjp(g, dummies, vs);
  std::vector<Tensor> out(ys.size());
  for (std::size_t i = 0, k = 0; i < ys.size(); ++i)
    if (us[i].defined()) out[i] = tangents[k++];
  return {std::move(ys), std::move(out)};
}

std::vector<Tensor> hvp(const std::function<Tensor(std::span<const Tensor>)>& f, std::span<const Tensor> xs,
                        std::span<const Tensor> vs) {
  if (xs.size() != vs.size()) fail(ErrorKind::gradient, "[hvp] {} inputs but {} directions", xs.size(), vs.size());
  const std::vector<Tensor> in = fresh(xs);
  const Tensor y = f(in);
  check_loss(y);
  return vjp(grad(y, in), in, vs);
}

Tensor jacobian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  const Tensor in = fresh(x);
  const Tensor y = f(in);
  const std::int64_t n = y.numel();
  Shape shape = y.shape();
  for (auto d : x.shape()) shape.push_back(d);
  if (n == 0) return zeros(shape, x.dtype());
  std::vector<Tensor> rows;
  for (std::int64_t i = 0; i < n; ++i) {
    const Tensor e = reshape(cast(equal(arange(n), full({}, static_cast<double>(i), i64)), y.dtype()), y.shape());
    rows.push_back(vjp(std::span(&y, 1), std::span(&in, 1), std::span(&e, 1))[0]);
  }
  return reshape(stack(rows, 0), shape);
}

Tensor hessian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return jacobian(
      [&](const Tensor& z) {
        const Tensor y = f(z);
        return grad(reshape(y, Shape{}), z);
      },
      x);
}

}  // namespace bp
