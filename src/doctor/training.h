// The training loop that the experiments share: batches from a loader into one compiled step.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "bp/data.h"
#include "bp/layers.h"
#include "bp/optim.h"
#include "bp/schedule.h"
#include "doctor/cures.h"

namespace bp::doctor {

using Loss = std::function<Tensor(const Tensor& logits, const Tensor& target)>;
using Model = std::function<Tensor(const Tensor& x)>;

struct Plan {
  int epochs = 1;
  int batch = 64;
  Key key{};
  Schedule rate = {};                         // of the update, from 0 on; unset: the optimizer's
  Loss loss = {};                             // unset: cross_entropy
  std::function<void(int)> after_epoch = {};  // told the epochs done
  Model model = {};                           // unset: the network itself
};

struct History {
  std::vector<double> losses;  // one an update
  bool finite = true;          // false: stopped at the first loss that was not
  double final_loss() const;   // mean of the last 20 updates; NaN unless finite
  double largest_norm = 0;     // of the gradients before clipping, while finite
};

// Stops at the first loss that is NaN or infinite: nothing comes back from there.
History train(nn::Sequential& net, optim::Optimizer& optimizer, std::shared_ptr<const data::Source> source,
              const Plan& plan);
History train(nn::Sequential& net, optim::Optimizer& optimizer, const data::ArrayDataset& data, const Plan& plan);

struct Score {
  double accuracy;  // percent
  double loss;      // mean cross entropy
};
Score score(const nn::Sequential& net, const data::ArrayDataset& data, const Model& model = {});

// The losses as a curve: means of about 60 runs of updates, at the update where each ends.
void put_curve(Outcome& outcome, const std::vector<double>& losses);

// Linear layers `widths[0]` -> .. -> `widths.back()`, `activation` behind each but the last.
nn::Sequential dense(const std::vector<std::int64_t>& widths, const Initializer& weights,
                     const std::function<std::unique_ptr<nn::Layer>()>& activation);
template <class L> std::function<std::unique_ptr<nn::Layer>()> layer() {
  return [] { return std::make_unique<L>(); };
}

}  // namespace bp::doctor
