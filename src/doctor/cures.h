// Troubles of training and their cures: for each a small real training that fails and the same one mended. One table,
// cures(), from which `bp cures`, docs/cures.md and tests/cures all come: no figure or verdict is written by hand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bp/data.h"
#include "bp/io.h"
#include "bp/rng.h"

namespace bp::doctor {

// Where the experiments find images, and how large they are. The files are read when the first experiment asks.
class Lab {
 public:
  // `folder` holds the four files of Fashion-MNIST. quick: the small form that the tests run.
  Lab(std::string folder, bool quick) : folder_(std::move(folder)), quick_(quick) {}

  int size(int full, int quick) const noexcept { return quick_ ? quick : full; }
  // The first n images, each [28, 28, 1] seen as `sample`, with mean 0 and deviation 1; or as they are: bytes.
  // Throws Error(io) naming the Debian package when the files are missing.
  data::ArrayDataset train(const Shape& sample, std::int64_t n) const;
  data::ArrayDataset test(const Shape& sample, std::int64_t n) const;
  data::ArrayDataset train_bytes(const Shape& sample, std::int64_t n) const;
  data::ArrayDataset test_bytes(const Shape& sample, std::int64_t n) const;

 private:
  const data::ArrayDataset& images(bool train) const;
  std::string folder_;
  bool quick_;
  mutable std::optional<data::ArrayDataset> train_, test_;
};

// What one run of one setup gave.
struct Outcome {
  std::vector<double> figures;  // one a column of the cure
  std::vector<double> x, y;     // its curve in the cure's plot
};

struct Setup {
  std::string name;
  bool fails;  // shows the trouble; the others mend it
  std::function<Outcome(const Lab&, Key)> run;
};

struct Column {
  std::string name;
  int digits = 3;  // significant ones; 0: a whole number
};

// What counts: at `fails` or beyond the trouble is there, at `mended` or beyond it is gone. The larger of the two tells
// the better direction. NaN fails.
struct Bound {
  std::size_t column;
  double fails, mended;
};

struct Cure {
  std::string name;     // of --only
  std::string title;    // of the trouble
  std::string trouble;  // what goes wrong and why, with the formula
  std::string remedy;   // what helps and why, with the papers
  std::string setting;  // the training
  std::vector<Column> columns;
  std::vector<Bound> bounds;  // failing: any fails; mended: all are
  io::ChartOptions chart;
  std::vector<Setup> setups;
};

enum class Verdict { fails, between, mended };
const char* name_of(Verdict verdict) noexcept;
Verdict judge(const Cure& cure, const Outcome& outcome);

// All of them, in the order of the page.
std::vector<Cure> cures();
// Those named, in the order of the table; all for none. Throws Error(config) naming the nearest for an unknown one.
std::vector<Cure> cures_named(std::span<const std::string> names);

struct Measured {
  Cure cure;
  std::vector<std::vector<Outcome>> outcomes;  // [setup][seed]
  double seconds = 0;
};
// Seeds 1 .. seeds. before(setup, seed) is told what comes next.
Measured measure(Cure cure, const Lab& lab, int seeds, const std::function<void(const Setup&, int)>& before = {});
// Whether every failing setup failed and every mended one did not, with every seed.
bool as_expected(const Measured& m);

// ---- cures_report.cc
// -------------------------------------------------------------------------------------------------

// For a terminal: a row a setup, figures as median (lowest to highest) over the seeds, and the verdicts.
std::string table_text(const Measured& m);
std::string chart_svg(const Measured& m);  // of the first seed
std::string page(std::span<const Measured> all, int seeds);
// cures.md and a cures_<name>.svg each in `folder`, which is made.
void write_page(const std::string& folder, std::span<const Measured> all, int seeds);

}  // namespace bp::doctor
