// The batch within a loop's body. Where each sample is computed from its own values and from what all samples share,
// the loop can run over some rows of the batch on one thread and over the rest on others: no step waits for another
// thread, and what a row leaves is read by the core that wrote it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ir/body.h"
#include "ir/graph.h"

namespace bp::passes {

struct BatchAxis {
  std::int64_t rows = 0;
  std::vector<bool> along;  // by node: axis 0 is the batch; other values are the same for all samples
};

// nullopt where a sample may depend on another, a value is not known to be of one sample, or there are no carries.
std::optional<BatchAxis> find_batch(const ir::Graph& body, const ir::ScanLayout& layout);

// The body for `rows` samples.
ir::Graph with_rows(const ir::Graph& body, const BatchAxis& batch, std::int64_t rows);

}  // namespace bp::passes
