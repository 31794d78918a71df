// Rematerialisation: a step that does not fit its memory budget frees what the forward pass left for the backward pass
// and computes it again where it is read. It works on groups after they are scheduled, so that a second run is the same
// kernel as the first, and gives the same bits; what follows (Chen et al. 2016, "Training deep nets with sublinear
// memory cost"; Kirisame et al. 2021, "Dynamic tensor rematerialization") chooses them.
//
// Groups are taken greedily, the most bytes freed for the least work first. Groups that are taken and read each other
// form a segment, which runs again as a whole and is then in memory as a whole: so no segment may hold more than a
// limit, and what joins two full ones is kept, a checkpoint. Several limits are tried, since a larger one keeps fewer
// checkpoints; of all prefixes of all these lists the cheapest that fits is carried out.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <queue>
#include <set>

#include "base/error.h"
#include "passes/remat.h"

namespace bp::passes {

namespace {

using GroupId = RematModel::GroupId;
using ValueId = RematModel::ValueId;
using Dropped = RematModel::Dropped;

// Groups that are taken together: one, and what has to run before it because nobody keeps its operands.
struct Move {
  std::vector<GroupId> groups;
  double gain = 0, cost = 0;  // bytes; bytes of traffic
  double ratio() const { return gain / (cost + 1); }
};

class Chooser {
 public:
  Chooser(const RematModel& model, double segment_bytes)
      : model_(model),
        limit_(segment_bytes),
        taken_(model.groups(), false),
        refused_(model.groups(), false),
        in_move_(model.groups(), false),
        wanted_(model.values(), 0),
        segment_(model.groups()),
        held_(model.groups(), 0) {
    std::iota(segment_.begin(), segment_.end(), 0u);
    for (ValueId v = 0; v < model.values(); ++v)
      for (GroupId k : model.value(v).readers) wanted_[v] += model.late(k) ? 1 : 0;
  }

  std::vector<Move> run() {
    for (GroupId k = 0; k < model_.groups(); ++k) offer(k);
    std::vector<Move> moves;
    while (!queue_.empty()) {
      const auto [minus_ratio, k] = queue_.top();
      queue_.pop();
      if (taken_[k] || refused_[k]) continue;
      Move m = best_move(k);
      if (m.gain <= 0) continue;
      if (m.ratio() < -minus_ratio * (1 - 1e-9)) {  // worth less since it was offered
        queue_.emplace(-m.ratio(), k);
        continue;
      }
      if (!fits(m) && (m.groups.size() == 1 || !fits(m = alone(k)) || m.gain <= 0)) {
        refused_[k] = true;  // segments only grow
        continue;
      }
      take(m);
      moves.push_back(std::move(m));
    }
    return moves;
  }

 private:
  static constexpr std::size_t kMostTogether = 32;

  double bytes_of(ValueId v) const { return static_cast<double>(model_.value(v).bytes); }
  bool available(ValueId v) const {
    const RematModel::Stored& value = model_.value(v);
    return value.outside || wanted_[v] > 0 || taken_[value.producer];
  }
  bool is_free(GroupId k) const { return model_.can_drop(k) && !taken_[k] && !refused_[k]; }
  // Bytes that the backward pass keeps of a group's results.
  double kept_bytes(GroupId k) const {
    double bytes = 0;
    for (ValueId v : model_.results(k))
      if (wanted_[v] > 0 && !model_.value(v).outside) bytes += bytes_of(v);
    return bytes;
  }

  void offer(GroupId k) {
    if (!is_free(k) || kept_bytes(k) <= 0) return;
    if (const Move m = best_move(k); m.gain > 0) queue_.emplace(-m.ratio(), k);
  }

  Move best_move(GroupId k) {
    Move one = alone(k), many = with_producers(k);
    return one.gain > 0 && one.ratio() >= many.ratio() ? one : many;
  }

  // The operands that nobody keeps are kept from now on.
  Move alone(GroupId k) const {
    Move m{{k}, kept_bytes(k), model_.cost(k)};
    for (ValueId v : model_.reads(k))
      if (!available(v)) m.gain -= bytes_of(v);
    return m;
  }

  // They are computed again, and so on; and what else they serve is taken along if that pays as much.
  Move with_producers(GroupId k) {
    Move m;
    std::set<ValueId> extended;
    const auto join = [&](GroupId j) {
      m.groups.push_back(j), in_move_[j] = true;
      m.gain += kept_bytes(j), m.cost += model_.cost(j);
    };
    join(k);
    for (std::size_t i = 0; i < m.groups.size(); ++i)
      for (ValueId v : model_.reads(m.groups[i])) {
        const GroupId j = model_.value(v).producer;
        if (available(v) || in_move_[j]) continue;
        if (is_free(j) && m.groups.size() < kMostTogether)
          join(j);
        else if (extended.insert(v).second)
          m.gain -= bytes_of(v);
      }
    for (std::size_t i = 1, count = m.groups.size(); i < count; ++i)
      for (ValueId v : model_.results(m.groups[i]))
        for (GroupId j : model_.value(v).readers)
          if (m.groups.size() < kMostTogether && serves(m, j)) join(j);
    for (GroupId j : m.groups) in_move_[j] = false;
    return m;
  }
  bool serves(const Move& m, GroupId j) const {
    if (!is_free(j) || in_move_[j] || kept_bytes(j) < m.ratio() * (model_.cost(j) + 1)) return false;
    return std::all_of(model_.reads(j).begin(), model_.reads(j).end(),
                       [&](ValueId v) { return available(v) || in_move_[model_.value(v).producer]; });
  }

  // ---- segments ----
  GroupId root(GroupId k) {
    while (segment_[k] != k) k = segment_[k] = segment_[segment_[k]];
    return k;
  }
  // Calls f with each taken group that reads k or is read by it.
  template <class F> void each_neighbour(GroupId k, F f) const {
    for (ValueId v : model_.reads(k))
      if (const GroupId j = model_.value(v).producer; taken_[j] && !model_.value(v).outside) f(j);
    for (ValueId v : model_.results(k))
      if (!model_.value(v).outside)
        for (GroupId j : model_.value(v).readers)
          if (taken_[j]) f(j);
  }
  bool fits(const Move& m) {
    std::set<GroupId> joined;
    double bytes = 0;
    for (GroupId k : m.groups) {
      bytes += kept_bytes(k);
      each_neighbour(k, [&](GroupId j) { joined.insert(root(j)); });
    }
    for (GroupId r : joined) bytes += held_[r];
    return bytes <= limit_;
  }

  void take(const Move& m) {
    for (GroupId k : m.groups) taken_[k] = true, held_[k] = kept_bytes(k);
    for (GroupId k : m.groups)
      for (ValueId v : model_.reads(k)) {
        const GroupId j = model_.value(v).producer;
        if (wanted_[v]++ == 0 && taken_[j]) held_[root(j)] += bytes_of(v);
      }
    for (GroupId k : m.groups) each_neighbour(k, [&](GroupId j) { unite(root(k), root(j)); });
    // What feeds them may have become worth freeing; what they feed costs less now.
    for (GroupId k : m.groups) {
      for (ValueId v : model_.reads(k)) offer(model_.value(v).producer);
      for (ValueId v : model_.results(k))
        for (GroupId j : model_.value(v).readers) offer(j);
    }
  }
  void unite(GroupId a, GroupId b) {
    if (a == b) return;
    segment_[b] = a;
    held_[a] += held_[b];
  }

  const RematModel& model_;
  double limit_;
  std::vector<bool> taken_, refused_, in_move_;
  std::vector<std::uint32_t> wanted_;  // by value: late readers, and second runs that read it
  std::vector<GroupId> segment_;       // union-find
  std::vector<double> held_;           // by root: bytes of a segment while it runs again
  using Offer = std::pair<double, GroupId>;
  std::priority_queue<Offer, std::vector<Offer>, std::greater<>> queue_;  // the best ratio first, then the earliest
};

// What the pass may do: prefixes of lists of moves, one list a limit of segments.
class Choices {
 public:
  explicit Choices(const RematModel& model) : model_(model) {
    double all = 0;
    for (ValueId v = 0; v < model.values(); ++v) all += static_cast<double>(model.value(v).bytes);
    for (double limit = all; limit >= all / kSmallestSegment && limit > 0; limit /= kLimitStep)
      add(Chooser(model, limit).run());
  }

  struct Choice {
    std::size_t list = 0, moves = 0;
    RematModel::Outcome outcome;
  };
  // The least memory of all.
  const Choice& least() const {
    return *std::min_element(tried_.begin(), tried_.end(), [](const Choice& a, const Choice& b) {
      return std::pair(a.outcome.peak_bytes, a.outcome.cost) < std::pair(b.outcome.peak_bytes, b.outcome.cost);
    });
  }
  // The least work that takes at most so many bytes.
  std::optional<Choice> within(double bytes) const {
    std::optional<Choice> best;
    for (std::size_t i = 0; i < tried_.size(); ++i) {
      if (static_cast<double>(tried_[i].outcome.peak_bytes) > bytes) continue;
      const bool gap = i > 0 && tried_[i - 1].list == tried_[i].list &&
                       static_cast<double>(tried_[i - 1].outcome.peak_bytes) > bytes;
      const Choice c = gap ? shortest(tried_[i - 1], tried_[i], bytes) : tried_[i];
      if (!best || c.outcome.cost < best->outcome.cost) best = c;
    }
    return best;
  }
  Dropped dropped(const Choice& c) const {
    Dropped out(model_.groups(), false);
    for (std::size_t i = 0; i < c.moves; ++i)
      for (GroupId k : lists_[c.list][i].groups) out[k] = true;
    return out;
  }

 private:
  static constexpr double kSmallestSegment = 1024, kLimitStep = 1.5;
  static constexpr std::size_t kPrefixes = 24;

  void add(std::vector<Move> moves) {
    const std::size_t count = moves.size();
    lists_.push_back(std::move(moves));
    for (std::size_t i = 0; i <= kPrefixes; ++i) {
      const std::size_t prefix = count * i / kPrefixes;
      if (i == 0 || prefix != tried_.back().moves) tried_.push_back(tried(lists_.size() - 1, prefix));
    }
  }
  Choice tried(std::size_t list, std::size_t moves) const {
    Choice c{list, moves, {}};
    c.outcome = model_.outcome(dropped(c));
    return c;
  }
  // Between a prefix that takes too much and a longer one that fits.
  Choice shortest(Choice over, Choice fits, double bytes) const {
    while (fits.moves > over.moves + 1) {
      const Choice middle = tried(fits.list, (over.moves + fits.moves) / 2);
      (static_cast<double>(middle.outcome.peak_bytes) > bytes ? over : fits) = middle;
    }
    return fits;
  }

  const RematModel& model_;
  std::vector<std::vector<Move>> lists_;
  std::vector<Choice> tried_;
};

// A step below this peak stays in the cache: without a budget it is left as it is.
constexpr std::size_t kWorthThrift = 16 << 20;

// Whether its peak can be that large.
bool may_be_large(const ir::Graph& g) {
  std::size_t bytes = 0;
  bool backward = false;
  for (const ir::Node& n : g.nodes) {
    backward = backward || n.backward;
    for (const Type& t : n.types) bytes += t.bytes();
  }
  return backward && bytes >= kWorthThrift;
}

class Rematerialiser {
 public:
  Rematerialiser(const ir::Graph& g, const Partition& p, const RematOptions& options)
      : g_(g), p_(p), options_(options), model_(g, p) {}

  // Nothing: the step stays as it is.
  std::optional<Rematerialised> run() {
    if (options_.budget == 0) return thrift();
    const std::size_t budget = options_.budget, whole = options_.planned_bytes(g_, p_);
    std::optional<Rematerialised> unbudgeted = thrift();
    const std::size_t unbudgeted_bytes =
        unbudgeted ? options_.planned_bytes(unbudgeted->graph, unbudgeted->partition) : whole;
    if (unbudgeted_bytes <= budget) return unbudgeted;
    const Choices choices(model_);
    // The model leaves out packed weights, workspaces, inputs and gaps: what it errs by is learnt from real plans.
    double beside =
        static_cast<double>(whole) - static_cast<double>(model_.outcome(Dropped(model_.groups())).peak_bytes);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const auto choice = choices.within(static_cast<double>(budget) - beside);
      if (!choice) break;
      Rematerialised r = carried_out(choices.dropped(*choice));
      const std::size_t bytes = options_.planned_bytes(r.graph, r.partition);
      if (bytes <= budget) return r;
      beside = std::max(beside + 1, static_cast<double>(bytes) - static_cast<double>(choice->outcome.peak_bytes));
    }
    Rematerialised r = carried_out(choices.dropped(choices.least()));
    const std::size_t least = options_.planned_bytes(r.graph, r.partition);
    if (least <= budget) return r;
    fail(ErrorKind::config,
         "[compile] memory_budget: expected at least {} bytes, the least in which this step can run, got {} (without a "
         "budget it takes {})",
         std::min(least, unbudgeted_bytes), budget, unbudgeted_bytes);
  }

 private:
  static constexpr int kAttempts = 6;
  // Where nobody asks for less: so much more work, by the model, is fine if it takes so much off a peak of some size.
  // One choice is made (segments of a 16th of the peak), and that many of its moves are looked at.
  static constexpr double kThriftCost = 0.01, kThriftGain = 0.02, kThriftSegments = 16;
  static constexpr int kThriftTries = 64;

  std::optional<Rematerialised> thrift() const {
    const std::size_t whole = model_.outcome(Dropped(model_.groups())).peak_bytes;
    if (whole < kWorthThrift) return std::nullopt;
    double work = 0, more = 0;
    for (GroupId k = 0; k < model_.groups(); ++k) work += model_.cost(k);
    Dropped dropped(model_.groups()), best;
    std::size_t least = whole - static_cast<std::size_t>(kThriftGain * static_cast<double>(whole));
    int tries = 0;
    for (const Move& m : Chooser(model_, static_cast<double>(whole) / kThriftSegments).run()) {
      more += m.cost;
      if (more > kThriftCost * work || ++tries > kThriftTries) break;
      for (GroupId k : m.groups) dropped[k] = true;
      if (const std::size_t peak = model_.outcome(dropped).peak_bytes; peak < least) least = peak, best = dropped;
    }
    if (best.empty()) return std::nullopt;
    return carried_out(best);
  }

  Rematerialised carried_out(const Dropped& dropped) const {
    Rematerialised r = run_again(g_, p_, model_, dropped);
    schedule(r.graph, r.partition);  // states are overwritten after second runs that read them
    return r;
  }

  const ir::Graph& g_;
  const Partition& p_;
  const RematOptions& options_;
  const RematModel model_;
};

}  // namespace

bool rematerialise(ir::Graph& g, Partition& p, const RematOptions& options) {
  if (options.budget == 0 && !may_be_large(g)) return false;
  std::optional<Rematerialised> r = Rematerialiser(g, p, options).run();
  if (!r) return false;
  g = std::move(r->graph);
  p = std::move(r->partition);
  return true;
}

}  // namespace bp::passes
