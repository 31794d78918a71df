// Greedy-by-size placement of arena buffers.
#include "cpu/plan/plan.h"

#include <algorithm>
#include <numeric>

namespace bp::cpu {

namespace {

constexpr std::size_t kAlign = 64;

struct Life {
  BufferId id;
  std::size_t bytes;  // rounded
  std::uint32_t first, last;
};

std::vector<Life> lifetimes(const Program& p) {
  constexpr std::uint32_t kNever = ~0u;
  std::vector<std::uint32_t> first(p.buffers.size(), kNever), last(p.buffers.size(), 0);
  for (std::uint32_t s = 0; s < p.steps.size(); ++s)
    for (const auto* list : {&p.steps[s].reads, &p.steps[s].writes})
      for (BufferId b : *list) {
        if (first[b] == kNever) first[b] = s;
        last[b] = s;
      }
  std::vector<Life> out;
  for (BufferId b = 0; b < p.buffers.size(); ++b)
    if (p.buffers[b].kind == MemoryRef::Kind::arena && first[b] != kNever)
      out.push_back(
          {b, (std::max<std::size_t>(p.buffers[b].bytes, 1) + kAlign - 1) / kAlign * kAlign, first[b], last[b]});
  return out;
}

// Placed lives, bucketed by blocks of steps, so that a search meets only those that may overlap.
class Placed {
 public:
  explicit Placed(std::size_t steps) : blocks_(steps / kBlock + 1) {}
  void add(const Life& life, std::size_t offset) {
    const auto i = static_cast<std::uint32_t>(lives_.size());
    lives_.push_back({life, offset});
    for (std::size_t b = life.first / kBlock; b <= life.last / kBlock; ++b) blocks_[b].push_back(i);
  }
  // The occupied [begin, end) ranges during a life, sorted.
  std::vector<std::pair<std::size_t, std::size_t>> during(const Life& life) const {
    std::vector<std::pair<std::size_t, std::size_t>> out;
    for (std::size_t b = life.first / kBlock; b <= life.last / kBlock; ++b)
      for (std::uint32_t i : blocks_[b]) {
        const auto& [other, offset] = lives_[i];
        if (other.first <= life.last && life.first <= other.last) out.emplace_back(offset, offset + other.bytes);
      }
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  static constexpr std::size_t kBlock = 16;
  std::vector<std::pair<Life, std::size_t>> lives_;
  std::vector<std::vector<std::uint32_t>> blocks_;
};

}  // namespace

void plan_memory(Program& p) {
  std::vector<Life> lives = lifetimes(p);
  std::sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.first != b.first ? a.first < b.first : a.id < b.id;
  });
  Placed placed(p.steps.size());
  p.arena_bytes = 0;
  for (const Life& life : lives) {
    std::size_t at = 0;
    for (auto [begin, end] : placed.during(life)) {
      if (begin >= at + life.bytes) break;
      at = std::max(at, end);
    }
    placed.add(life, at);
    p.buffers[life.id].offset = at;
    p.arena_bytes = std::max(p.arena_bytes, at + life.bytes);
  }
}

}  // namespace bp::cpu
