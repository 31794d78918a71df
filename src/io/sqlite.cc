// SQLite's C interface, and what its codes mean to a user.
#include "io/sqlite.h"

#include <sqlite3.h>

#include <cmath>
#include <limits>

namespace bp::io {

namespace {
constexpr int kBusyMilliseconds = 10000;

const char* sqlite_remedy(int code) {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return "; another program holds it: try again";
    case SQLITE_FULL: return "; free some space";
    case SQLITE_READONLY:
    case SQLITE_PERM: return "; check the permissions of the file and its folder";
    case SQLITE_CANTOPEN: return "; check the path and its permissions";
    default: return "";
  }
}

[[noreturn]] void fail_sqlite(int code, const char* message, const std::string& path) {
  const int kind = code & 0xff;
  const bool damaged = kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB;
  fail(damaged ? ErrorKind::format : ErrorKind::io, "{}: {}{}", path, message, sqlite_remedy(code));
}
}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
void Database::Close::operator()(sqlite3* d) const noexcept { sqlite3_close_v2(d); }

void Statement::check(int code) const {
  if (code != SQLITE_OK) fail_sqlite(code, sqlite3_errmsg(sqlite3_db_handle(statement_.get())), path_);
}

void Statement::rewind() {
  sqlite3_reset(statement_.get());  // its code is that of the last step, which has been reported
  sqlite3_clear_bindings(statement_.get());
}

void Statement::bind(int place, std::int64_t value) { check(sqlite3_bind_int64(statement_.get(), place, value)); }
void Statement::bind(int place, double value) { check(sqlite3_bind_double(statement_.get(), place, value)); }
void Statement::bind(int place, std::string_view value) {
  check(sqlite3_bind_text64(statement_.get(), place, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}

bool Statement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  const std::string message = sqlite3_errmsg(sqlite3_db_handle(statement_.get()));
  sqlite3_reset(statement_.get());
  fail_sqlite(code, message.c_str(), path_);
}

std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }
double Statement::number(int column) const {
  return null(column) ? std::numeric_limits<double>::quiet_NaN() : sqlite3_column_double(statement_.get(), column);
}
bool Statement::null(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }
std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  return text == nullptr ? std::string()
                         : std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

Database::Database(std::string path) : path_(std::move(path)) {
  sqlite3* opened = nullptr;
  const int code = sqlite3_open_v2(path_.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  database_.reset(opened);
  if (code != SQLITE_OK) fail_sqlite(code, opened != nullptr ? sqlite3_errmsg(opened) : "out of memory", path_);
  sqlite3_extended_result_codes(opened, 1);
  sqlite3_busy_timeout(opened, kBusyMilliseconds);
  script("PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL");
  // Keeps the old mode where memory cannot be shared; busy: another program is about to change it.
  const int wal = sqlite3_exec(opened, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
  if (wal != SQLITE_OK && (wal & 0xff) != SQLITE_BUSY) fail_sqlite(wal, sqlite3_errmsg(opened), path_);
}

Statement Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(database_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) fail_sqlite(code, sqlite3_errmsg(database_.get()), path_);
  return {statement, path_};
}

void Database::script(const std::string& sql) {
  const int code = sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail_sqlite(code, sqlite3_errmsg(database_.get()), path_);
}

std::int64_t Database::version() {
  Statement s = prepare("PRAGMA user_version");
  return s.step() ? s.integer(0) : 0;
}
void Database::set_version(std::int64_t version) { script(fmt::format("PRAGMA user_version = {}", version)); }

Transaction::Transaction(Database& database, bool writes) : database_(database) {
  database_.script(writes ? "BEGIN IMMEDIATE" : "BEGIN");
}
Transaction::~Transaction() {
  if (open_) sqlite3_exec(database_.database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}
void Transaction::commit() {
  database_.script("COMMIT");
  open_ = false;
}

}  // namespace bp::io
