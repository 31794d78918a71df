// The tables of a study.
#include "train/study.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kStudyVersion = 1, kMostDeaths = 3;
constexpr const char* kStudyTables = R"(
CREATE TABLE study (definition TEXT);
CREATE TABLE trials (
  number INTEGER PRIMARY KEY, state TEXT, value REAL, epochs INTEGER, seconds REAL, reason TEXT, deaths INTEGER);
CREATE TABLE rungs (
  trial INTEGER REFERENCES trials, epoch INTEGER, cost REAL, goes_on INTEGER, PRIMARY KEY (trial, epoch)) WITHOUT ROWID;
)";

// "lr = 0.1" against "lr = 0.2".
std::string first_difference(const std::string& before, const std::string& now) {
  std::istringstream a(before), b(now);
  std::string line_a, line_b;
  for (;;) {
    const bool more_a = static_cast<bool>(std::getline(a, line_a)), more_b = static_cast<bool>(std::getline(b, line_b));
    if (!more_a) line_a = "nothing";
    if (!more_b) line_b = "nothing";
    if (line_a != line_b || (!more_a && !more_b)) return fmt::format("\"{}\" was \"{}\"", line_b, line_a);
  }
}

Trial trial_of(const io::Statement& row) {
  return {row.integer(0), row.text(1), row.number(2), row.integer(3), row.number(4), row.text(5)};
}

}  // namespace

std::optional<FileLock> FileLock::take(const std::string& path) {
  const int file = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  if (file < 0) fail(ErrorKind::io, "{}: cannot open: {}", path, std::strerror(errno));
  FileLock lock(file);
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return std::nullopt;
  fail(ErrorKind::io, "{}: cannot lock: {}", path, std::strerror(errno));
}
FileLock::FileLock(FileLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(file_, other.file_);
  return *this;
}
FileLock::~FileLock() {
  if (file_ >= 0) close(file_);
}

Study::Study(const std::string& folder, const std::string& definition)
    : folder_(folder), database_((fs::path(folder) / "study.sqlite").string()) {
  begin(definition);
}

void Study::begin(const std::string& definition) {
  io::Transaction all(database_);
  const std::int64_t version = database_.version();
  if (version > kStudyVersion)
    fail(ErrorKind::state, "{}: was made by a newer bp (version {} of its tables, this bp knows {})", database_.path(),
         version, kStudyVersion);
  if (version == 0) {
    database_.script(kStudyTables);
    database_.run("INSERT INTO study VALUES (?1)", definition);
    database_.set_version(kStudyVersion);
  } else {
    io::Statement row = database_.prepare("SELECT definition FROM study");
    const std::string before = row.step() ? row.text(0) : "";
    if (before != definition)
      fail(ErrorKind::state,
           "{}: is a search with other settings: {}; --out DIR begins another one (only tune.trials and train.threads "
           "may change)",
           database_.path(), first_difference(before, definition));
  }
  all.commit();
}

std::string Study::folder_of(std::int64_t number) const {
  return (fs::path(folder_) / fmt::format("trial-{:03}", number)).string();
}

std::optional<Claim> Study::take(const Trial& trial, std::int64_t deaths) {
  const std::string folder = folder_of(trial.number);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(ErrorKind::io, "{}: cannot make this folder: {}", folder, error.message());
  std::optional<FileLock> lock = FileLock::take((fs::path(folder) / "worker.lock").string());
  if (!lock) return std::nullopt;
  Trial running = trial;
  running.state = deaths < kMostDeaths ? "running" : "failed";
  running.reason = deaths < kMostDeaths ? "" : fmt::format("its worker was killed {} times", deaths);
  database_.run(
      "INSERT INTO trials VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (number) DO UPDATE SET state = ?2, reason = "
      "?6, deaths = ?7",
      running.number, running.state, running.value, running.epochs, running.seconds, running.reason, deaths);
  if (deaths >= kMostDeaths) return std::nullopt;
  return Claim{std::move(running), std::move(*lock)};
}

std::optional<Claim> Study::claim(std::int64_t trials) {
  io::Transaction all(database_);
  std::vector<std::pair<Trial, std::int64_t>> left;
  io::Statement rows = database_.prepare(
      "SELECT number, state, value, epochs, seconds, reason, deaths FROM trials WHERE state IN ('running', "
      "'interrupted') AND number < ?1 ORDER BY number");
  rows.with(trials);
  while (rows.step()) left.emplace_back(trial_of(rows), rows.integer(6));
  std::optional<Claim> claim;
  for (const auto& [trial, deaths] : left) {
    claim = take(trial, deaths + (trial.state == "running" ? 1 : 0));
    if (claim) break;
  }
  if (!claim) {
    io::Statement next = database_.prepare("SELECT ifnull(max(number) + 1, 0) FROM trials");
    next.step();
    const Trial fresh{next.integer(0), "running", std::nan(""), 0, 0, ""};
    next.with();
    if (fresh.number < trials) claim = take(fresh, 0);
  }
  all.commit();
  return claim;
}

void Study::progress(const Trial& t) {
  database_.run("UPDATE trials SET value = ?2, epochs = ?3, seconds = ?4 WHERE number = ?1", t.number, t.value,
                t.epochs, t.seconds);
}

void Study::end(const Trial& t) {
  database_.run("UPDATE trials SET state = ?2, value = ?3, epochs = ?4, seconds = ?5, reason = ?6 WHERE number = ?1",
                t.number, t.state, t.value, t.epochs, t.seconds, t.reason);
}

bool Study::passes_rung(std::int64_t number, std::int64_t epoch, double cost, std::int64_t eta) {
  io::Transaction all(database_);
  io::Statement known = database_.prepare("SELECT goes_on FROM rungs WHERE trial = ?1 AND epoch = ?2");
  if (known.with(number, epoch).step()) return known.integer(0) != 0;
  std::vector<double> costs{cost};
  io::Statement others = database_.prepare("SELECT cost FROM rungs WHERE epoch = ?1");
  others.with(epoch);
  while (others.step()) costs.push_back(others.number(0));
  const bool passes = goes_on(costs, cost, eta);
  database_.run("INSERT INTO rungs VALUES (?1, ?2, ?3, ?4)", number, epoch, cost, passes ? 1 : 0);
  all.commit();
  return passes;
}

std::map<std::int64_t, double> Study::rungs(std::int64_t number) {
  std::map<std::int64_t, double> costs;
  io::Statement rows = database_.prepare("SELECT epoch, cost FROM rungs WHERE trial = ?1");
  rows.with(number);
  while (rows.step()) costs[rows.integer(0)] = rows.number(1);
  return costs;
}

bool Study::stopped(std::int64_t number) {
  io::Statement row = database_.prepare("SELECT 1 FROM rungs WHERE trial = ?1 AND goes_on = 0");
  return row.with(number).step();
}

std::vector<Trial> Study::trials() {
  std::vector<Trial> all;
  io::Statement rows =
      database_.prepare("SELECT number, state, value, epochs, seconds, reason FROM trials ORDER BY number");
  while (rows.step()) all.push_back(trial_of(rows));
  return all;
}

}  // namespace bp::train
