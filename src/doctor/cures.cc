// The table of cures, its data and its verdicts. Called by `bp cures` and tests/cures.
#include "doctor/cures.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/nearest.h"
#include "bp/datasets.h"
#include "doctor/experiments.h"

namespace bp::doctor {

namespace {
data::ArrayDataset seen_as(const data::ArrayDataset& images, const Shape& sample, std::int64_t n) {
  std::vector<std::int64_t> dims{images.inputs().rows()};
  for (int i = 0; i < sample.rank(); ++i) dims.push_back(sample[i]);
  return data::ArrayDataset(images.inputs().reshaped(Shape(dims)), images.targets()).take(n);
}
// Fashion-MNIST's mean and deviation.
data::ArrayDataset normalized(const data::ArrayDataset& bytes) { return bytes.normalized({0.2860F}, {0.3530F}); }
}  // namespace

const data::ArrayDataset& Lab::images(bool train) const {
  std::optional<data::ArrayDataset>& slot = train ? train_ : test_;
  if (!slot) {
    const std::string stem = folder_ + (train ? "/train-" : "/t10k-");
    try {
      slot = data::load_idx_pair(stem + "images-idx3-ubyte.gz", stem + "labels-idx1-ubyte.gz", 10);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::io) throw;
      fail(ErrorKind::io,
           "{}\n  Debian's package dataset-fashion-mnist has the images; --data DIR names another folder", e.what());
    }
  }
  return *slot;
}

data::ArrayDataset Lab::train_bytes(const Shape& sample, std::int64_t n) const {
  return seen_as(images(true), sample, n);
}
data::ArrayDataset Lab::test_bytes(const Shape& sample, std::int64_t n) const {
  return seen_as(images(false), sample, n);
}
data::ArrayDataset Lab::train(const Shape& sample, std::int64_t n) const { return normalized(train_bytes(sample, n)); }
data::ArrayDataset Lab::test(const Shape& sample, std::int64_t n) const { return normalized(test_bytes(sample, n)); }

const char* name_of(Verdict verdict) noexcept {
  switch (verdict) {
    case Verdict::fails: return "fails";
    case Verdict::mended: return "mended";
    case Verdict::between: break;
  }
  return "between";
}

Verdict judge(const Cure& cure, const Outcome& outcome) {
  bool all = true;
  for (const Bound& b : cure.bounds) {
    const double direction = b.mended > b.fails ? 1 : -1, figure = outcome.figures[b.column] * direction;
    if (std::isnan(figure) || figure <= b.fails * direction) return Verdict::fails;
    all = all && figure >= b.mended * direction;
  }
  return all ? Verdict::mended : Verdict::between;
}

std::vector<Cure> cures() {
  return {vanishing(), exploding(),   saddle(), minimum(), plateau(),
          cost(),      overfitting(), tuning(), logits(),  precision()};
}

std::vector<Cure> cures_named(std::span<const std::string> names) {
  std::vector<Cure> all = cures();
  if (names.empty()) return all;
  std::vector<std::string> known;
  for (const Cure& c : all) known.push_back(c.name);
  for (const std::string& name : names)
    if (std::find(known.begin(), known.end(), name) == known.end())
      fail(ErrorKind::config, "cures: there is no \"{}\": did you mean \"{}\"?", name, nearest_name(name, known));
  std::erase_if(all, [&](const Cure& c) { return std::find(names.begin(), names.end(), c.name) == names.end(); });
  return all;
}

Measured measure(Cure cure, const Lab& lab, int seeds, const std::function<void(const Setup&, int)>& before) {
  Measured m{std::move(cure), {}, 0};
  const auto start = std::chrono::steady_clock::now();
  for (const Setup& setup : m.cure.setups) {
    std::vector<Outcome>& row = m.outcomes.emplace_back();
    for (int seed = 1; seed <= seeds; ++seed) {
      if (before) before(setup, seed);
      row.push_back(setup.run(lab, Key(static_cast<std::uint64_t>(seed))));
    }
  }
  m.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return m;
}

bool as_expected(const Measured& m) {
  for (std::size_t i = 0; i < m.outcomes.size(); ++i)
    for (const Outcome& o : m.outcomes[i])
      if (judge(m.cure, o) != (m.cure.setups[i].fails ? Verdict::fails : Verdict::mended)) return false;
  return true;
}

}  // namespace bp::doctor
