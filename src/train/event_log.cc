// What TensorBoard sees of a run.
#include "train/event_log.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "train/pictures.h"

namespace bp::train {

namespace {

constexpr std::int64_t kHistograms = 100, kPictures = 16;

std::string events_of(const std::string& run, const char* part) {
  return (std::filesystem::path(run) / "events" / part).string();
}

// Markdown shows lines that are indented by four blanks as they are.
std::string as_code(const std::string& text) {
  std::string out = "    ";
  for (const char c : text) out += c == '\n' ? std::string("\n    ") : std::string(1, c);
  return out;
}

}  // namespace

EventLog::EventLog(const std::string& folder, const Config& config, const nn::Sequential& model, bool validation,
                   std::int64_t done)
    : config_(config), model_(model), train_(events_of(folder, "train"), done > 0 ? done + 1 : 0) {
  if (validation) validation_.emplace(events_of(folder, "validation"), done > 0 ? done + 1 : 0);
}

void EventLog::begin(const data::Source& training) {
  train_.text("config", as_code(to_toml(config_.root)), 0);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(kPictures, training.size())));
  std::iota(rows.begin(), rows.end(), 0);
  const data::Batch batch = training.fetch(rows, Key{config_.seed});
  std::vector<Array> pictures;
  for (const std::int64_t row : rows)
    if (std::optional<Array> picture = picture_of(config_, batch.x, row)) pictures.push_back(std::move(*picture));
  if (!pictures.empty()) train_.image("training images", grid_of(pictures, 4), 0);
  train_.flush();
}

void EventLog::epoch(const std::vector<std::string>& columns, const std::vector<double>& row) {
  const auto step = static_cast<std::int64_t>(row.front());
  for (std::size_t i = 1; i < columns.size(); ++i) {
    if (std::isnan(row[i])) continue;
    const std::string& name = columns[i];
    if (name.starts_with("validation_")) {
      if (validation_) validation_->scalar(name.substr(11), row[i], step);
    } else {
      train_.scalar(name.starts_with("train_") ? name.substr(6) : name, row[i], step);
    }
  }
  const std::int64_t stride = (config_.train.epochs + kHistograms - 1) / kHistograms;
  if (step % std::max<std::int64_t>(1, stride) == 0 || step == config_.train.epochs)
    for (const nn::NamedVariable& v : nn::state(model_))
      if (v.variable.trainable()) train_.histogram("parameters/" + v.name, to_array(v.variable.get()), step);
  train_.flush();
  if (validation_) validation_->flush();
}

}  // namespace bp::train
