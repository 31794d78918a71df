// Evaluation outside compile: pending tensors are captured, compiled (once a structure) and run.
#include <list>
#include <mutex>
#include <unordered_map>

#include "base/error.h"
#include "runtime/backend.h"
#include "trace/node.h"

namespace bp {

namespace {

// Executables of eager graphs, found again by structure. Least recently used ones go first.
class EagerCache {
 public:
  // Runs `g` on the constants' memory; returns fresh buffers for its outputs.
  std::vector<Buffer> run(ir::Graph g) {
    std::lock_guard lock(mutex_);
    std::vector<const void*> inputs;
    for (const ir::Input& i : g.inputs) inputs.push_back(i.constant.data());
    std::vector<Buffer> buffers;
    std::vector<void*> outputs;
    for (const ir::Output& o : g.outputs) {
      buffers.push_back(Buffer::allocate(g.type(o.value).bytes()));
      outputs.push_back(buffers.back().mutable_data());
    }
    const std::vector<Buffer> keep = release_constants(g);
    find_or_build(std::move(g)).run(inputs, outputs);
    return buffers;
  }

 private:
  struct Entry {
    std::size_t hash;
    ir::Graph key;
    std::unique_ptr<cpu::Executable> executable;
  };

  // The key must not keep the data alive.
  static std::vector<Buffer> release_constants(ir::Graph& g) {
    std::vector<Buffer> out;
    for (ir::Input& i : g.inputs) out.push_back(std::exchange(i.constant, Buffer()));
    return out;
  }

  cpu::Executable& find_or_build(ir::Graph g) {
    const std::size_t hash = g.hash();
    const auto [first, last] = index_.equal_range(hash);
    for (auto it = first; it != last; ++it)
      if (it->second->key.same_structure(g)) {
        entries_.splice(entries_.begin(), entries_, it->second);
        return *it->second->executable;
      }
    runtime::Built built = runtime::build(g, {.threads = runtime::default_threads()});
    entries_.push_front({hash, std::move(g), std::move(built.executable)});
    index_.emplace(hash, entries_.begin());
    if (entries_.size() > kLimit) evict();
    return *entries_.front().executable;
  }

  void evict() {
    const auto [first, last] = index_.equal_range(entries_.back().hash);
    for (auto it = first; it != last; ++it)
      if (it->second == std::prev(entries_.end())) {
        index_.erase(it);
        break;
      }
    entries_.pop_back();
  }

  static constexpr std::size_t kLimit = 256;
  std::mutex mutex_;
  std::list<Entry> entries_;
  std::unordered_multimap<std::size_t, std::list<Entry>::iterator> index_;
};

EagerCache& eager_cache() {
  static EagerCache cache;
  return cache;
}

}  // namespace

void evaluate(std::span<const Tensor> tensors) {
  std::vector<Tensor> pending;
  for (const Tensor& t : tensors) {
    if (!t.defined()) fail(ErrorKind::value, "[evaluate] an undefined Tensor");
    if (t.node()->evaluated()) continue;
    if (t.node()->region != 0)
      fail(ErrorKind::trace, "a {} of the body of a scan or cond has no value of its own: return it from the body",
           t.type().str());
    if (t.node()->trace != 0)
      fail(ErrorKind::trace, "a {} recorded inside compile has no value: return it from the compiled function",
           t.type().str());
    // All outputs of a node, so that the node as a whole becomes a leaf.
    for (std::uint32_t k = 0; k < t.node()->types.size(); ++k) pending.emplace_back(t.node(), k);
  }
  if (pending.empty()) return;
  detail::Captured captured = detail::capture(pending, {}, {}, 0);
  std::vector<Buffer> results = eager_cache().run(std::move(captured.graph));
  for (std::size_t i = 0; i < pending.size(); ++i) {
    detail::Node& node = *pending[i].node();
    if (pending[i].output() == 0 && !node.evaluated())
      node.values.assign(results.begin() + static_cast<std::ptrdiff_t>(i),
                         results.begin() + static_cast<std::ptrdiff_t>(i + node.types.size()));
  }
  for (const Tensor& t : pending) {
    t.node()->depth = 0;
    detail::release_history(*t.node());
  }
}

}  // namespace bp
