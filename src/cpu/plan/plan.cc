// Placement of arena buffers: greedy by size, or by time where there are many.
#include "cpu/plan/plan.h"

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <set>
#include <utility>

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
  for (std::uint32_t s = 0; s < p.prologue; ++s)
    for (BufferId b : p.steps[s].writes) last[b] = static_cast<std::uint32_t>(p.steps.size()) - 1;
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

// Free ranges of the arena, found by size (best fit) and by place (to join neighbours).
class FreeList {
 public:
  std::size_t take(std::size_t bytes) {
    const auto fit = by_size_.lower_bound({bytes, 0});
    if (fit == by_size_.end()) return grow(bytes);
    const auto [size, offset] = *fit;
    erase(offset, size);
    if (size > bytes) insert(offset + bytes, size - bytes);
    return offset;
  }
  void give(std::size_t offset, std::size_t bytes) {
    auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.end() && next->first == offset + bytes) {
      bytes += next->second;
      erase(next->first, next->second);
    }
    const auto before = by_offset_.lower_bound(offset);
    if (before != by_offset_.begin())
      if (const auto last = std::prev(before); last->first + last->second == offset) {
        offset = last->first;
        bytes += last->second;
        erase(last->first, last->second);
      }
    insert(offset, bytes);
  }
  std::size_t end() const noexcept { return end_; }

 private:
  // New bytes at the end, joined with a free range that reaches it.
  std::size_t grow(std::size_t bytes) {
    std::size_t offset = end_;
    if (!by_offset_.empty())
      if (const auto last = *std::prev(by_offset_.end()); last.first + last.second == end_) {
        offset = last.first;
        erase(last.first, last.second);
      }
    end_ = offset + bytes;
    return offset;
  }
  void insert(std::size_t offset, std::size_t bytes) {
    by_offset_.emplace(offset, bytes);
    by_size_.emplace(bytes, offset);
  }
  void erase(std::size_t offset, std::size_t bytes) {
    by_offset_.erase(offset);
    by_size_.erase({bytes, offset});
  }
  std::map<std::size_t, std::size_t> by_offset_;
  std::set<std::pair<std::size_t, std::size_t>> by_size_;
  std::size_t end_ = 0;
};

// Greedy by size compares every pair of lives: past this many, buffers are placed in order of time instead.
constexpr std::size_t kGreedyLives = 2000;

void place_by_size(Program& p, std::vector<Life>& lives) {
  std::sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.first != b.first ? a.first < b.first : a.id < b.id;
  });
  Placed placed(p.steps.size());
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

void place_by_time(Program& p, std::vector<Life>& lives) {
  std::sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) {
    return a.first != b.first ? a.first < b.first : a.bytes != b.bytes ? a.bytes > b.bytes : a.id < b.id;
  });
  using End = std::pair<std::uint32_t, const Life*>;
  std::priority_queue<End, std::vector<End>, std::greater<>> living;
  FreeList free;
  for (const Life& life : lives) {
    for (; !living.empty() && living.top().first < life.first; living.pop())
      free.give(p.buffers[living.top().second->id].offset, living.top().second->bytes);
    p.buffers[life.id].offset = free.take(life.bytes);
    living.emplace(life.last, &life);
  }
  p.arena_bytes = free.end();
}

}  // namespace

void plan_memory(Program& p) {
  std::vector<Life> lives = lifetimes(p);
  p.arena_bytes = 0;
  if (lives.size() <= kGreedyLives)
    place_by_size(p, lives);
  else
    place_by_time(p, lives);
}

}  // namespace bp::cpu
