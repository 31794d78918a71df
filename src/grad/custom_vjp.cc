// custom_vjp: a function whose gradient the user gives.
#include "ops/common.h"
#include "ops/custom.h"

namespace bp {

std::vector<Tensor> custom_vjp(const Function& f, const Backward& backward, std::span<const Tensor> xs) {
  if (!f || !backward) fail(ErrorKind::value, "[custom_vjp] needs both a function and its backward");
  std::vector<Tensor> inputs = f(xs);
  const std::size_t results = inputs.size();
  inputs.insert(inputs.end(), xs.begin(), xs.end());
  ir::Attrs attrs{{"outputs", static_cast<std::int64_t>(results)}};
  attrs.set("backward", std::shared_ptr<const ir::Opaque>(std::make_shared<ops::BackwardHolder>(backward)));
  const auto node = detail::record(ir::OpId::custom_vjp, std::move(inputs), std::move(attrs));
  std::vector<Tensor> out;
  for (std::uint32_t k = 0; k < results; ++k) out.emplace_back(node, k);
  return out;
}

}  // namespace bp
