// RUN/report.html: one page about a run that needs nothing else, no network and no scripts. `bp train` writes it at the
// end, `bp report` again.
#pragma once

#include <optional>
#include <string>

#include "train/config.h"
#include "train/findings.h"
#include "train/runs.h"

namespace bp::train {

// `set` is what `findings` are about, null where they are of no data; a run that was interrupted has none.
std::string report_html(const Config& config, const std::string& run, const RunRecord& record,
                        const std::optional<Findings>& findings, const data::Source* set);
// Where the trainer's step spends its time on the first rows of `set`; takes some steps.
Profile profile_on(Trainer& trainer, const Config& config, const data::Source& set);
// Examines the run's model, if it has left one, and writes the page; its path.
std::string report_run(const std::string& run);

}  // namespace bp::train
