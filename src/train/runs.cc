// Records of runs: as JSON, as rows of SQLite, and found again in a run's folder.
#include "train/runs.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "bp/io.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kRecord = "run.json";
constexpr const char* kDatabase = "runs.sqlite";
constexpr std::int64_t kVersion = 1;
constexpr const char* kTables = R"(
DROP TABLE IF EXISTS metrics;
DROP TABLE IF EXISTS runs;
CREATE TABLE runs (
  folder TEXT PRIMARY KEY, name TEXT, status TEXT, reason TEXT, started REAL, updated REAL, seconds REAL,
  epochs INTEGER, planned_epochs INTEGER, steps INTEGER, parameters INTEGER,
  config_hash TEXT, config TEXT, environment TEXT);
CREATE TABLE metrics (
  folder TEXT REFERENCES runs ON DELETE CASCADE, name TEXT, last REAL, best REAL, best_epoch INTEGER,
  PRIMARY KEY (folder, name)) WITHOUT ROWID;
)";
constexpr const char* kPutRun = R"(INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
ON CONFLICT (folder) DO UPDATE SET name = ?2, status = ?3, reason = ?4, started = ?5, updated = ?6, seconds = ?7,
  epochs = ?8, planned_epochs = ?9, steps = ?10, parameters = ?11, config_hash = ?12, config = ?13, environment = ?14)";

std::string path_in(const std::string& folder, const char* file) { return (fs::path(folder) / file).string(); }

// Settings and environment keep their order; JSON's null stands for NaN.
template <class Pairs> Json object_of(const Pairs& pairs) {
  Json object = Json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}
std::string dumped(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);  // text that is not UTF-8 is no reason to fail
}
double number_of(const Json& json) { return json.is_null() ? std::nan("") : json.get<double>(); }

void add_settings(RunRecord& record, const std::string& key, const Node& node) {
  const auto below = [&](const std::string& name) { return key.empty() ? name : key + "." + name; };
  const bool tables =
      node.kind == Node::Kind::array && !node.items.empty() && node.items.front().kind == Node::Kind::table;
  if (node.kind == Node::Kind::table) {
    for (const auto& [name, value] : node.entries) add_settings(record, below(name), value);
  } else if (tables) {
    for (std::size_t i = 0; i < node.items.size(); ++i) add_settings(record, below(std::to_string(i)), node.items[i]);
  } else {
    record.settings.emplace_back(key, node.kind == Node::Kind::text ? node.text : node.str());
  }
}

// FNV-1a, 64 bits, of a configuration without its name.
std::string hash_of(Node config) {
  std::erase_if(config.entries, [](const auto& entry) { return entry.first == "name"; });
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : to_toml(config)) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash);
}

// A run that was left without saying how it ended.
std::string status_now(const RunRecord& r) {
  if (r.status != "running") return r.status;
  const auto host = r.environment.find("host"), process = r.environment.find("process");
  if (host == r.environment.end() || process == r.environment.end()) return r.status;
  char here[256] = "";
  gethostname(here, sizeof here - 1);
  if (host->second != here) return r.status;
  const auto pid = static_cast<pid_t>(std::strtol(process->second.c_str(), nullptr, 10));
  return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH ? "killed" : r.status;
}

double written_at(const std::string& file) {
  std::error_code error;
  const auto time = fs::last_write_time(file, error);
  if (error) return 0;
  const auto system = std::chrono::file_clock::to_sys(time);
  return std::chrono::duration<double>(system.time_since_epoch()).count();
}

}  // namespace

std::optional<io::Table> read_history(const std::string& run) {
  const std::string path = path_in(run, "history.csv");
  if (!fs::exists(path)) return std::nullopt;
  const Buffer text = io::read_file(path, {.max_bytes = 1u << 30});
  const std::string_view all(text.as<char>(), text.bytes());
  if (all.find('\n') + 1 >= all.size()) return std::nullopt;  // a header
  io::CsvOptions options;
  options.dtype = DType::f64;
  options.missing = io::Missing::nan;
  options.allow_non_finite = true;
  return io::read_csv(path, options);
}

void add_history(RunRecord& record, const std::string& run) {
  const std::optional<io::Table> history = read_history(run);
  if (!history) return;
  const io::Table& table = *history;
  record.epochs = 0;
  record.seconds = 0;
  record.metrics.clear();
  std::vector<std::string> columns;
  for (const io::Column& c : table.columns) columns.push_back(c.name);
  std::vector<double> row(columns.size());
  for (std::int64_t i = 0; i < table.rows(); ++i) {
    for (std::size_t k = 0; k < row.size(); ++k) row[k] = table.columns[k].values.data<double>()[i];
    add_epoch(record, columns, row);
  }
}

namespace {

// From the files that runs have left since before there were records.
RunRecord record_of_files(const std::string& run) {
  RunRecord r;
  const std::string config = path_in(run, "config.toml");
  const Node root = read_toml(config);
  set_settings(r, root);
  if (const Node* name = root.find("name")) r.name = name->text;
  if (const Node* train = root.find("train"))
    if (const Node* epochs = train->find("epochs")) r.planned_epochs = epochs->integer;
  r.status = fs::exists(path_in(run, "model.safetensors")) ? "finished" : "interrupted";
  r.started = written_at(config);
  add_history(r, run);
  r.updated = std::max(r.started, written_at(path_in(run, "history.csv")));
  return r;
}

}  // namespace

std::pair<std::string, std::string> split_run(const std::string& run) {
  fs::path path = fs::absolute(run).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return {path.parent_path().string(), path.filename().string()};
}

bool lower_is_better(std::string_view metric) {
  for (const char* part : {"loss", "mae", "rmse", "mse", "error", "perplexity"})
    if (metric.find(part) != std::string_view::npos) return true;
  return false;
}

void add_epoch(RunRecord& r, const std::vector<std::string>& columns, const std::vector<double>& row) {
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string& name = columns[i];
    if (name == "epoch") r.epochs = static_cast<std::int64_t>(row[i]);
    if (name == "seconds" && std::isfinite(row[i])) r.seconds += row[i];
    if (!(name.starts_with("train_") || name.starts_with("validation_")) || std::isnan(row[i])) continue;
    const auto [at, added] = r.metrics.try_emplace(name, MetricRecord{row[i], row[i], r.epochs});
    MetricRecord& m = at->second;
    m.last = row[i];
    if (!added && (lower_is_better(name) ? row[i] < m.best : row[i] > m.best)) {
      m.best = row[i];
      m.best_epoch = r.epochs;
    }
  }
}

void set_settings(RunRecord& record, const Node& config) {
  record.settings.clear();
  add_settings(record, "", config);
  record.config_hash = hash_of(config);
}

std::string to_json(const RunRecord& r) {
  Json metrics = Json::object();
  for (const auto& [name, m] : r.metrics)
    metrics[name] = Json{{"last", m.last}, {"best", m.best}, {"best_epoch", m.best_epoch}};
  const Json json{{"folder", r.folder},
                  {"name", r.name},
                  {"status", r.status},
                  {"reason", r.reason},
                  {"started", r.started},
                  {"updated", r.updated},
                  {"seconds", r.seconds},
                  {"resumed", r.resumed},
                  {"paused", r.paused},
                  {"epochs", r.epochs},
                  {"planned_epochs", r.planned_epochs},
                  {"steps", r.steps},
                  {"parameters", r.parameters},
                  {"metrics", metrics},
                  {"config_hash", r.config_hash},
                  {"config", object_of(r.settings)},
                  {"environment", object_of(r.environment)}};
  return dumped(json, 2);
}

RunRecord parse_run_record(const std::string& text, const std::string& where) {
  try {
    const Json json = Json::parse(text);
    RunRecord r;
    for (auto [key, to] : {std::pair{"folder", &r.folder},
                           {"name", &r.name},
                           {"status", &r.status},
                           {"reason", &r.reason},
                           {"config_hash", &r.config_hash}})
      *to = json.at(key).get<std::string>();
    for (auto [key, to] : {std::pair{"started", &r.started}, {"updated", &r.updated}, {"seconds", &r.seconds}})
      *to = number_of(json.at(key));
    for (auto [key, to] : {std::pair{"epochs", &r.epochs},
                           {"planned_epochs", &r.planned_epochs},
                           {"steps", &r.steps},
                           {"parameters", &r.parameters}})
      *to = json.at(key).get<std::int64_t>();
    r.resumed = json.value("resumed", r.resumed);  // unknown to older versions
    r.paused = json.value("paused", r.paused);
    for (const auto& [name, m] : json.at("metrics").items())
      r.metrics[name] = {number_of(m.at("last")), number_of(m.at("best")), m.at("best_epoch").get<std::int64_t>()};
    for (const auto& [key, value] : json.at("config").items()) r.settings.emplace_back(key, value.get<std::string>());
    for (const auto& [key, value] : json.at("environment").items()) r.environment[key] = value.get<std::string>();
    return r;
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::format, "{}: not the record of a run: {}", where, e.what());
  }
}

RunRecord read_run_record(const std::string& run) {
  const std::string file = path_in(run, kRecord);
  RunRecord record;
  bool known = false;
  if (fs::exists(file)) {
    try {
      const Buffer text = io::read_file(file, {.max_bytes = 64u << 20});
      record = parse_run_record(std::string(text.as<char>(), text.bytes()), file);
      known = true;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::format) throw;
    }
  }
  if (!known) record = record_of_files(run);
  if (known && record.status == "running") {
    add_history(record, run);
    record.updated = std::max(record.updated, written_at(path_in(run, "history.csv")));
  }
  // Its folder may have been renamed since.
  record.folder = split_run(run).second;
  return record;
}

void write_run_record(const std::string& run, const RunRecord& record) {
  io::write_file(path_in(run, kRecord), to_json(record) + "\n");
}

RunIndex::RunIndex(const std::string& folder) : folder_(folder.empty() ? "." : folder) {
  if (!fs::is_directory(folder_)) fail(ErrorKind::io, "{}: there is no such folder of runs", folder_);
  const std::string file = path_in(folder_, kDatabase);
  try {
    database_ = std::make_unique<io::Database>(file);
    begin();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::format) throw;
    database_.reset();
    for (const char* suffix : {"", "-wal", "-shm"}) {
      std::error_code absent;
      fs::rename(file + suffix, file + ".damaged" + suffix, absent);
    }
    database_ = std::make_unique<io::Database>(file);
    begin();
  }
}

void RunIndex::begin() {
  if (database_->version() == kVersion) return;
  io::Transaction all(*database_);  // of several programs that find the file missing, one makes it
  const std::int64_t version = database_->version();
  if (version == kVersion) return;
  if (version > kVersion)
    fail(ErrorKind::state, "{}: was made by a newer bp (version {} of its tables, this bp knows {})", database_->path(),
         version, kVersion);
  database_->script(kTables);
  fill();
  database_->set_version(kVersion);
  all.commit();
}

void RunIndex::scan() {
  io::Transaction all(*database_);
  fill();
  all.commit();
}

void RunIndex::fill() {
  skipped_.clear();
  std::error_code error;
  for (auto at = fs::directory_iterator(folder_, fs::directory_options::skip_permission_denied, error);
       !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string run = at->path().string();
    std::error_code unreadable;
    if (!fs::exists(at->path() / "config.toml", unreadable)) continue;
    try {
      put_rows(read_run_record(run));
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::config || e.kind() == ErrorKind::format || e.kind() == ErrorKind::io) {
        skipped_.push_back(fmt::format("{}: {}", run, e.what()));
      } else {
        throw;
      }
    }
  }
}

void RunIndex::put(const RunRecord& record) {
  io::Transaction all(*database_);
  put_rows(record);
  all.commit();
}

void RunIndex::put_rows(const RunRecord& r) {
  database_->run(kPutRun, r.folder, r.name, r.status, r.reason, r.started, r.updated, r.seconds, r.epochs,
                 r.planned_epochs, r.steps, r.parameters, r.config_hash, dumped(object_of(r.settings)),
                 dumped(object_of(r.environment)));
  database_->run("DELETE FROM metrics WHERE folder = ?1", r.folder);
  io::Statement metric = database_->prepare("INSERT INTO metrics VALUES (?1, ?2, ?3, ?4, ?5)");
  for (const auto& [name, m] : r.metrics) metric.with(r.folder, name, m.last, m.best, m.best_epoch).run();
}

std::vector<RunRecord> RunIndex::all() {
  std::vector<RunRecord> runs;
  const io::Transaction snapshot(*database_, false);  // both tables as of one moment
  io::Statement rows = database_->prepare(
      "SELECT folder, name, status, reason, started, updated, seconds, epochs, planned_epochs, steps, parameters, "
      "config_hash, config, environment FROM runs ORDER BY started, folder");
  io::Statement metrics = database_->prepare("SELECT name, last, best, best_epoch FROM metrics WHERE folder = ?1");
  while (rows.step()) {
    RunRecord r{rows.text(0),   rows.text(1),    rows.text(2),    rows.text(3),    rows.number(4),  rows.number(5),
                rows.number(6), rows.integer(7), rows.integer(8), rows.integer(9), rows.integer(10)};
    r.config_hash = rows.text(11);
    try {
      const Json config = Json::parse(rows.text(12)), environment = Json::parse(rows.text(13));
      for (const auto& [key, value] : config.items()) r.settings.emplace_back(key, value.get<std::string>());
      for (const auto& [key, value] : environment.items()) r.environment[key] = value.get<std::string>();
    } catch (const nlohmann::json::exception& e) {
      fail(ErrorKind::format, "{}: the row of run {} is damaged: {}", database_->path(), r.folder, e.what());
    }
    metrics.with(r.folder);
    while (metrics.step()) r.metrics[metrics.text(0)] = {metrics.number(1), metrics.number(2), metrics.integer(3)};
    r.status = status_now(r);
    runs.push_back(std::move(r));
  }
  return runs;
}

bool RunIndex::remove(const std::string& run) {
  io::Transaction all(*database_);
  io::Statement found = database_->prepare("SELECT 1 FROM runs WHERE folder = ?1");
  if (!found.with(run).step()) return false;
  found.with(run);
  database_->run("DELETE FROM runs WHERE folder = ?1", run);
  all.commit();
  return true;
}

}  // namespace bp::train
