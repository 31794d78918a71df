// Names of checkpoints are their steps, so that the newest is known without opening any.
#include "train/checkpoints.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "bp/io.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "step-", kSuffix = ".safetensors";

// The step of "step-000000012.safetensors".
std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) || name.size() < kPrefix.size() + kSuffix.size() + 1)
    return std::nullopt;
  name = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

// The steps of the checkpoints in a folder, ascending; none where there is no such folder.
std::vector<std::pair<std::int64_t, std::string>> listed(const std::string& folder) {
  std::vector<std::pair<std::int64_t, std::string>> all;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const auto step = step_of(entry.path().filename().string())) all.emplace_back(*step, entry.path().string());
  if (error && error != std::errc::no_such_file_or_directory)
    fail(ErrorKind::io, "cannot list the folder {}: {}", folder, error.message());
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

bool has_checkpoints(const std::string& folder) { return !listed(folder).empty(); }

std::string newest_checkpoint(const std::string& folder, const std::function<void(const std::string&)>& skipped) {
  auto all = listed(folder);
  for (auto i = all.rbegin(); i != all.rend(); ++i) {
    try {
      io::read_safetensors(i->second);
      return i->second;
    } catch (const Error& e) {
      if (skipped) skipped(e.what());
    }
  }
  return {};
}

std::string Checkpoints::path_of(std::int64_t step) const {
  return (fs::path(options_.folder) / fmt::format("{}{:09}{}", kPrefix, step, kSuffix)).string();
}

void Checkpoints::open(std::optional<std::int64_t> step) {
  last_ = step.value_or(0);
  std::error_code error;
  fs::create_directories(options_.folder, error);
  if (error) fail(ErrorKind::io, "cannot make the folder of checkpoints {}: {}", options_.folder, error.message());
  if (!step && !listed(options_.folder).empty())
    fail(ErrorKind::state,
         "[train] {} holds the checkpoints of another run: resume it, delete them, or name another folder",
         options_.folder);
  for (const auto& entry : fs::directory_iterator(options_.folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.find(std::string(kSuffix) + ".tmp.") != std::string::npos)
      fs::remove(entry.path(), error);
  }
  const fs::path probe = fs::path(options_.folder) / "step-writable";
  io::write_file(probe.string(), "");
  fs::remove(probe, error);
}

void Checkpoints::rank(Ranked& best, std::int64_t step, double watched) const {
  const auto limit = static_cast<std::size_t>(options_.keep_best);
  const auto worse = [](const auto& a, const auto& b) { return a.second < b.second; };
  best.emplace_back(step, watched);
  std::stable_sort(best.begin(), best.end(), worse);  // of equals the earlier one counts as better
  if (best.size() > limit) best.resize(limit);
}

void Checkpoints::prune(std::int64_t step, const Ranked& best) {
  std::vector<std::pair<std::int64_t, std::string>> old;
  std::error_code ignored;  // what cannot be deleted only takes space
  for (auto& file : listed(options_.folder)) {
    const bool foreign = file.first > step || (file.first > last_ && file.first < step);
    if (foreign) {
      fs::remove(file.second, ignored);
    } else {
      old.push_back(std::move(file));
    }
  }
  const auto last = static_cast<std::size_t>(options_.keep_last);
  for (std::size_t i = 0; i + last < old.size(); ++i) {
    const auto same = [&](const auto& ranked) { return ranked.first == old[i].first; };
    if (std::none_of(best.begin(), best.end(), same)) fs::remove(old[i].second, ignored);
  }
  last_ = step;
}

}  // namespace bp::train
