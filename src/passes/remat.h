// Rematerialisation, seen from inside: which groups of a scheduled partition can run a second time, what the step then
// takes, and the graph in which they do. The pass (remat.cc) chooses.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "passes/pipeline.h"

namespace bp::passes {

// Groups are numbered as in the partition, which is in the order of execution. A group is late when it belongs to the
// backward pass. A group of the forward pass is "dropped" when late groups read a second run of it instead of what the
// first run left: its values die after their last forward reader.
class RematModel {
 public:
  RematModel(const ir::Graph& g, const Partition& p);

  using GroupId = std::uint32_t;
  using ValueId = std::uint32_t;
  struct Stored {  // a value that a group writes to memory
    GroupId producer = 0;
    std::size_t bytes = 0;
    bool outside = false;          // an output: not in the arena, and read there by everybody
    std::vector<GroupId> readers;  // ascending
  };
  std::size_t groups() const noexcept { return groups_.size(); }
  const Stored& value(ValueId v) const { return values_[v]; }
  std::size_t values() const noexcept { return values_.size(); }
  const std::vector<ValueId>& reads(GroupId k) const { return groups_[k].reads; }
  const std::vector<ValueId>& results(GroupId k) const { return groups_[k].results; }
  bool late(GroupId k) const { return groups_[k].late; }
  bool can_drop(GroupId k) const { return groups_[k].can_drop; }
  double cost(GroupId k) const { return groups_[k].cost; }  // of a second run, in bytes of memory traffic

  // What the second run of group k reads as v, a value from outside it.
  ir::Value read_again(GroupId k, ir::Value v) const;

  using Dropped = std::vector<bool>;  // by group
  // Whether late readers of v, a value or a view of one, read what a second run makes.
  bool is_second(ir::Value v, const Dropped& dropped) const;
  struct Run {
    GroupId group;
    bool again;
  };
  // The order of execution: second runs stand right before their first reader; what nobody needs is left out.
  std::vector<Run> order(const Dropped& dropped) const;
  struct Outcome {
    std::size_t peak_bytes = 0;  // of live values: what the arena takes but for packed weights and gaps
    double cost = 0;             // of what runs twice
  };
  Outcome outcome(const Dropped& dropped) const;

 private:
  struct GroupFacts {
    std::vector<ValueId> reads, results;
    std::vector<std::pair<ir::NodeId, ir::Value>> own_states;  // that it overwrites: the input, the new value
    bool late = false, can_drop = false, is_root = false;
    double cost = 0;
  };
  void number_values();
  void find_reads();
  void find_late();
  void find_candidates();
  double cost_of(GroupId k) const;
  ir::Value behind_views(ir::Value v) const { return passes::behind_views(g_, p_, v); }
  // By run: whether anybody reads it.
  std::vector<bool> needed(const std::vector<Run>& runs, const Dropped& dropped) const;
  bool is_second(ValueId v, const Dropped& dropped) const {
    return !values_[v].outside && dropped[values_[v].producer];
  }
  ValueId& id_of(ir::Value v) { return value_of_[first_output_[v.node] + v.output]; }
  // The number of what a run reads as v: those of second runs follow those of first ones.
  ValueId seen_by(const Run& run, ValueId v, const Dropped& dropped) const {
    const bool second = (run.again || late(run.group)) && is_second(v, dropped);
    return v + (second ? static_cast<ValueId>(values_.size()) : 0);
  }

  const ir::Graph& g_;
  const Partition& p_;
  std::vector<GroupFacts> groups_;
  std::vector<Stored> values_;
  std::vector<std::size_t> first_output_;  // by node
  std::vector<ValueId> value_of_;          // by first_output_[node] + output
};

// Carries a choice out. Both runs of a group write the same values, so that they are the same code and round alike.
struct Rematerialised {
  ir::Graph graph;
  Partition partition;
};
Rematerialised run_again(const ir::Graph& g, const Partition& p, const RematModel& model,
                         const RematModel::Dropped& dropped);

}  // namespace bp::passes
