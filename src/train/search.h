// What a search tries: [tune] of a configuration, the settings of trial n, when a trial stops early, and which keys
// mattered. Nothing here trains or stores; train/study.h and train/tune.h do.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "train/toml.h"

namespace bp::train {

// A key of the configuration and the values it may take.
struct Dimension {
  enum class Scale { choices, uniform, log, integer, log_integer };
  std::string key;  // "optimizer.lr", "model.layers.0.units"
  Scale scale = Scale::choices;
  std::vector<Node> choices = {};
  double low = 0, high = 0;  // both may be taken
  std::int64_t points = 0;   // on a grid; 0: not given

  Node at(double u) const;                // u in [0, 1): evenly by the scale, rounded to six digits
  Node on_grid(std::int64_t i) const;     // i in [0, size()): from low to high, both included
  std::int64_t size() const;              // of its grid
  double place(const Node& value) const;  // a number that orders values: the value, or the number of a choice
};

struct Search {
  enum class Method { grid, random, halton, asha };
  Method method = Method::random;
  std::int64_t trials = 0;
  std::uint64_t seed = 0;
  std::int64_t min_epochs = 1, eta = 3;  // asha
  std::vector<Dimension> dimensions;
};

// Throws Error(config), naming file, line and key.
Search read_search(Node& tune);

// The values of trial `number` (from 0 on), one a dimension; they depend on the search and the number alone.
// grid: the last dimension fastest. random and asha: independent draws. halton: Halton 1960 in the first primes, moved
// around by a random shift (Cranley and Patterson 1976), which fills the space more evenly.
std::vector<Node> proposal(const Search& search, std::int64_t number);
// "optimizer.lr=0.01" for each, as --set takes them.
std::vector<std::string> assignments(const Search& search, const std::vector<Node>& values);

// Successive halving without waiting (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020),
// in the form that stops trials instead of pausing them. Rungs are the epochs min_epochs * eta^k.
bool is_rung(const Search& search, std::int64_t epoch);
// Whether a trial goes on past a rung: it is among the best 1/eta (the best one at least) of those that came there so
// far. `costs` are theirs, its own among them; smaller is better, NaN the worst.
bool goes_on(std::span<const double> costs, double own, std::int64_t eta);

// How far a trial came: its cost at rungs and at its end, by epoch; none for one that diverged.
struct Course {
  std::int64_t number = 0;
  std::map<std::int64_t, double> costs = {};
};
// The numbers of trials, those first that are better than more others. Two are compared at the last epoch that both
// have a cost of: the first trials of a search pass rungs for want of others, which makes none of them good.
std::vector<std::int64_t> by_wins(std::span<const Course> courses);

// Share of the variance of the trials' ranks that each dimension explains alone, in [0, 1]: epsilon squared (Kelley
// 1935), the correlation ratio less what chance would give, over choices, or over ranges cut into bins of equally many
// trials. A main effect, as in functional ANOVA (Hutter et al., ICML 2014); interactions count for no key. `numbers`
// are the trials from best to worst. Zeros for fewer than four.
std::vector<double> importance(const Search& search, std::span<const std::int64_t> numbers);
// Horizontal bars.
std::string importance_svg(const Search& search, std::span<const double> shares, const std::string& title);

}  // namespace bp::train
