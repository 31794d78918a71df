// The gradient of scan. The forward loop is recorded once more with what the gradient needs as further outputs (the
// pass "scan" merges the two loops into one); a loop in the other direction then carries the cotangents of the carries
// and the sums of the invariants' cotangents. Under checkpointing only the carries are kept and the iteration is
// computed again.
#include "ops/scan_vjp.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "bp/grad.h"
#include "ops/common.h"
#include "trace/body.h"

namespace bp::ops {

ir::Attrs scan_attrs(std::shared_ptr<const ir::Opaque> body, std::int64_t length, std::size_t invariants,
                     std::size_t carries, bool reverse, bool checkpoint) {
  return {{"body", std::move(body)},
          {"length", length},
          {"invariants", static_cast<std::int64_t>(invariants)},
          {"carries", static_cast<std::int64_t>(carries)},
          {"reverse", reverse},
          {"checkpoint", checkpoint}};
}

namespace {

using detail::Bound;
using detail::Node;
using detail::Region;

struct TensorHash {
  std::size_t operator()(const Tensor& t) const noexcept {
    return std::hash<const void*>{}(t.node().get()) ^ t.output();
  }
};
struct TensorSame {
  bool operator()(const Tensor& a, const Tensor& b) const noexcept {
    return a.node() == b.node() && a.output() == b.output();
  }
};
using TensorSet = std::unordered_set<Tensor, TensorHash, TensorSame>;

class ScanVjp {
 public:
  explicit ScanVjp(const VjpArgs& v) : v_(v), layout_(v.attrs), checkpoint_(v.attrs.flag("checkpoint")) {
    for (std::size_t i = 0; i < v.in.size(); ++i) {
      const bool invariant = i < layout_.invariants, slice = i >= layout_.first_slice();
      const Tensor p =
          (invariant ? constant_ : step_).placeholder(slice ? ir::slice_type(v.in[i].type()) : v.in[i].type());
      inputs_.push_back(p);
      if (invariant) bound_.push_back({p, v.in[i]});
    }
    outputs_ = detail::instantiate(ir::body_of(v.attrs), inputs_);
  }

  std::vector<Tensor> run() {
    differentiate();
    find_kept();
    record_forward();
    return record_backward();
  }

 private:
  bool is_carry(std::size_t i) const { return i >= layout_.invariants && i < layout_.first_slice(); }

  // One iteration's cotangents, of the inputs in targets_.
  void differentiate() {
    first_backward_ = detail::make_placeholder({}, 0).node()->serial;  // whatever was recorded before is forward
    std::vector<Tensor> ys, cotangents;
    for (std::size_t k = 0; k < outputs_.size(); ++k) {
      const bool carry = k < layout_.carries;
      if (!is_float(outputs_[k].dtype()) || (!carry && !v_.cotangent[k].defined())) continue;
      const Tensor p = step_.placeholder(outputs_[k].type());
      (carry ? carry_cotangents_ : y_cotangents_).push_back(p);
      if (!carry) y_sources_.push_back(v_.cotangent[k]);
      ys.push_back(outputs_[k]);
      cotangents.push_back(p);
    }
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      if (is_float(inputs_[i].dtype()) && (is_carry(i) || v_.needed[i])) targets_.push_back(i);
    std::vector<Tensor> xs;
    for (std::size_t i : targets_) xs.push_back(inputs_[i]);
    grads_ = vjp(ys, xs, cotangents);
  }

  bool is_forward(const Node& n) const { return n.serial < first_backward_; }

  // The values of the forward iteration that the backward iteration reads: kept_, all of them step by step.
  void find_kept() {
    TensorSet seen;
    std::vector<Tensor> stack;
    const auto visit = [&](const Tensor& t) {
      const Node& n = *t.node();
      if (n.region < constant_.id() || !seen.insert(t).second) return;
      const bool placeholder = n.op == OpId::input;
      if (n.region == step_.id() && is_forward(n) && (placeholder || !(checkpoint_ || detail::is_rearrangement(n))))
        kept_.push_back(t);
      else if (!placeholder)
        stack.push_back(t);
    };
    for (const Tensor& g : grads_) visit(g);
    while (!stack.empty()) {
      const Tensor t = stack.back();
      stack.pop_back();
      for (const Tensor& in : t.node()->inputs) visit(in);
    }
    std::sort(kept_.begin(), kept_.end(), [](const Tensor& a, const Tensor& b) {
      return a.node()->serial != b.node()->serial ? a.node()->serial < b.node()->serial : a.output() < b.output();
    });
  }

  // Gives each kept value its stack over the iterations: an operand of this scan, an output of it, or a new output.
  void record_forward() {
    const auto same = [](const Tensor& a, const Tensor& b) { return TensorSame{}(a, b); };
    std::vector<Tensor> roots(outputs_.begin(), outputs_.end());
    std::vector<std::pair<std::size_t, std::uint32_t>> late;  // (position in stacks_, output)
    for (const Tensor& t : kept_) {
      Tensor stack;
      for (std::size_t i = layout_.first_slice(); i < inputs_.size(); ++i)
        if (same(inputs_[i], t)) stack = v_.in[i];
      for (std::size_t k = layout_.carries; k < roots.size(); ++k)
        if (!stack.defined() && same(roots[k], t)) late.emplace_back(stacks_.size(), static_cast<std::uint32_t>(k));
      if (!stack.defined() && (late.empty() || late.back().first != stacks_.size())) {
        late.emplace_back(stacks_.size(), static_cast<std::uint32_t>(roots.size()));
        roots.push_back(t);
      }
      stacks_.push_back(stack);
    }
    if (late.empty()) return;
    const std::span<const Tensor> all(inputs_);
    const detail::CapturedBody body = detail::capture_body(roots, all.subspan(layout_.invariants), constant_, bound_);
    std::vector<Tensor> operands = body.invariants;
    operands.insert(operands.end(), v_.in.begin() + static_cast<std::ptrdiff_t>(layout_.invariants), v_.in.end());
    const auto node = record(
        OpId::scan, std::move(operands),
        scan_attrs(body.body, layout_.length, body.invariants.size(), layout_.carries, layout_.reverse, checkpoint_));
    node->backward = v_.out[0].node()->backward;  // it is the forward loop
    for (auto [at, output] : late) stacks_[at] = Tensor(node, output);
  }

  std::vector<Tensor> record_backward() {
    std::vector<Tensor> init, arguments, roots, ys;
    std::size_t next = 0;
    for (std::size_t k = 0; k < layout_.carries; ++k)
      if (is_float(outputs_[k].dtype())) {
        init.push_back(v_.cotangent[k].defined() ? v_.cotangent[k] : zeros_like(v_.out[k]));
        arguments.push_back(carry_cotangents_[next++]);
      }
    std::vector<Tensor> sums;
    for (std::size_t j = 0; j < targets_.size(); ++j) {
      const std::size_t i = targets_[j];
      if (is_carry(i)) {
        roots.push_back(grads_[j]);
      } else if (i < layout_.invariants) {
        const Tensor p = step_.placeholder(inputs_[i].type());
        init.push_back(zeros(inputs_[i].shape(), inputs_[i].dtype()));
        arguments.push_back(p);
        sums.push_back(add(p, grads_[j]));
      } else {
        ys.push_back(grads_[j]);
      }
    }
    roots.insert(roots.end(), sums.begin(), sums.end());
    roots.insert(roots.end(), ys.begin(), ys.end());
    return scan_back(init, std::move(arguments), roots);
  }

  std::vector<Tensor> scan_back(const std::vector<Tensor>& init, std::vector<Tensor> arguments,
                                const std::vector<Tensor>& roots) {
    arguments.insert(arguments.end(), kept_.begin(), kept_.end());
    arguments.insert(arguments.end(), y_cotangents_.begin(), y_cotangents_.end());
    const detail::CapturedBody body = detail::capture_body(roots, arguments, constant_, bound_);
    std::vector<Tensor> operands = body.invariants;
    operands.insert(operands.end(), init.begin(), init.end());
    operands.insert(operands.end(), stacks_.begin(), stacks_.end());
    operands.insert(operands.end(), y_sources_.begin(), y_sources_.end());
    const auto node = record(
        OpId::scan, std::move(operands),
        scan_attrs(body.body, layout_.length, body.invariants.size(), init.size(), !layout_.reverse, checkpoint_));
    return assemble(node);
  }

  std::vector<Tensor> assemble(const std::shared_ptr<Node>& node) const {
    std::vector<Tensor> out(v_.in.size());
    std::uint32_t carry = 0, sum = 0, slice = 0;
    for (std::size_t i : targets_) {
      carry += is_carry(i) ? 1 : 0;
      sum += i < layout_.invariants ? 1 : 0;
    }
    slice = carry + sum;
    sum = carry;
    carry = 0;
    for (std::size_t i : targets_)
      out[i] = Tensor(node, is_carry(i) ? carry++ : i < layout_.invariants ? sum++ : slice++);
    return out;
  }

  const VjpArgs& v_;
  ir::ScanLayout layout_;
  bool checkpoint_;
  Region constant_, step_;  // placeholders of invariants; of everything that changes from step to step
  std::vector<Tensor> inputs_, outputs_;
  std::vector<Bound> bound_;
  std::uint64_t first_backward_ = 0;
  std::vector<Tensor> carry_cotangents_, y_cotangents_, y_sources_;
  std::vector<std::size_t> targets_;  // inputs with a cotangent, in order
  std::vector<Tensor> grads_;         // one a target
  std::vector<Tensor> kept_, stacks_;
};

}  // namespace

std::vector<Tensor> vjp_scan(const VjpArgs& v) { return ScanVjp(v).run(); }

}  // namespace bp::ops
