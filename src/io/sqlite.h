// SQLite behind a few lines: a database file, prepared statements, transactions; errors become bp::Error. Used by the
// record of runs (train/runs.h). Several programs may use one file at once: a writer waits for another up to ten
// seconds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

struct sqlite3;
struct sqlite3_stmt;

namespace bp::io {

// A prepared statement; lives no longer than its database.
class Statement {
 public:
  // Puts `values` into the places ?1, ?2, ... and begins anew. A NaN is stored as NULL.
  template <class... T> Statement& with(const T&... values) {
    rewind();
    int place = 0;
    (bind(++place, values), ...);
    return *this;
  }
  bool step();  // true: there is a row; false: done
  void run() {  // to its end
    while (step()) {}
  }

  // Of the row, by column from 0 on. NULL is 0, NaN or "".
  std::int64_t integer(int column) const;
  double number(int column) const;
  std::string text(int column) const;
  bool null(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* s) const noexcept;
  };
  Statement(sqlite3_stmt* statement, const std::string& path) : statement_(statement), path_(path) {}
  void rewind();
  void bind(int place, std::int64_t value);
  void bind(int place, int value) { bind(place, static_cast<std::int64_t>(value)); }
  void bind(int place, double value);
  void bind(int place, std::string_view value);
  void bind(int place, const std::string& value) { bind(place, std::string_view(value)); }
  void bind(int place, const char* value) { bind(place, std::string_view(value)); }
  void check(int code) const;

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  std::string path_;
};

class Database {
 public:
  // Opens the file, or makes it. Foreign keys hold; the write-ahead log is on where the file system allows, so that
  // readers do not wait. Throws Error(io) when it cannot be opened, Error(format) when it is not a database or damaged;
  // so do all calls below, naming the file and what SQLite says.
  explicit Database(std::string path);

  Statement prepare(std::string_view sql);
  template <class... T> void run(std::string_view sql, const T&... values) { prepare(sql).with(values...).run(); }
  void script(const std::string& sql);  // several statements, none with places
  std::int64_t version();               // PRAGMA user_version: 0 in a new file
  void set_version(std::int64_t version);
  const std::string& path() const noexcept { return path_; }

 private:
  friend class Transaction;
  struct Close {
    void operator()(sqlite3* d) const noexcept;
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> database_;
};

// All or nothing: without commit() what was written since is undone. Those that write queue at its beginning; one that
// only reads sees the file as of its first read.
class Transaction {
 public:
  explicit Transaction(Database& database, bool writes = true);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace bp::io
