// bp cures: the troubles of training and their cures, measured. Progress on stderr, tables on stdout, files in --out.
#include <fmt/format.h>

#include <cstdio>

#include "commands.h"
#include "doctor/cures.h"

namespace bp::app {

int cures(const CuresOptions& o) {
  const doctor::Lab lab(o.data, o.quick);
  std::vector<doctor::Measured> all;
  bool expected = true;
  for (doctor::Cure& cure : doctor::cures_named(o.only)) {
    const std::string name = cure.name;
    all.push_back(doctor::measure(std::move(cure), lab, o.seeds, [&](const doctor::Setup& setup, int seed) {
      fmt::print(stderr, "{}: {}, seed {}\n", name, setup.name, seed);
    }));
    fmt::print("{}\n", doctor::table_text(all.back()));
    std::fflush(stdout);
    expected = expected && doctor::as_expected(all.back());
  }
  if (!o.out.empty()) {
    doctor::write_page(o.out, all, o.seeds);
    fmt::print("{0}/cures.md and {0}/cures_*.svg are written\n", o.out);
  }
  if (!expected) fmt::print("not every verdict is the expected one\n");
  return expected ? kOk : kUnexpected;
}

}  // namespace bp::app
