// The wrapper of SQLite: values there and back, transactions, several programs at once, files that are no database.
#include "io/sqlite.h"

#include <sys/wait.h>

#include <cmath>

#include "helpers.h"

namespace bp::io {
namespace {

class Sqlite : public ::testing::Test {
 protected:
  TempDir folder_;
  std::string path_ = folder_ / "t.sqlite";
};

std::int64_t rows_in(Database& d) {
  Statement s = d.prepare("SELECT count(*) FROM t");
  EXPECT_TRUE(s.step());
  return s.integer(0);
}

TEST_F(Sqlite, ValuesComeBackAsTheyWere) {
  const std::string odd("a\0'b\xc3\xa4", 6);
  {
    Database d(path_);
    d.run("CREATE TABLE t (i INTEGER, x REAL, s TEXT)");
    Statement put = d.prepare("INSERT INTO t VALUES (?1, ?2, ?3)");
    put.with(std::int64_t{1} << 62, 0.1, odd).run();
    put.with(-1, std::nan(""), "").run();
    d.set_version(7);
  }
  Database d(path_);
  EXPECT_EQ(d.version(), 7);
  Statement s = d.prepare("SELECT i, x, s FROM t ORDER BY i DESC");
  ASSERT_TRUE(s.step());
  EXPECT_EQ(s.integer(0), std::int64_t{1} << 62);
  EXPECT_EQ(s.number(1), 0.1);
  EXPECT_EQ(s.text(2), odd);
  ASSERT_TRUE(s.step());
  EXPECT_TRUE(s.null(1));
  EXPECT_TRUE(std::isnan(s.number(1)));
  EXPECT_FALSE(s.step());
}

TEST_F(Sqlite, ATransactionIsAllOrNothing) {
  Database d(path_);
  d.run("CREATE TABLE t (i INTEGER)");
  {
    Transaction undone(d);
    d.run("INSERT INTO t VALUES (1)");
  }
  EXPECT_EQ(rows_in(d), 0);
  Transaction done(d);
  d.run("INSERT INTO t VALUES (1)");
  done.commit();
  EXPECT_EQ(rows_in(d), 1);
}

TEST_F(Sqlite, ProgramsWriteSideBySide) {
  constexpr int kPrograms = 4, kRows = 50;
  std::vector<pid_t> children;
  for (int p = 0; p < kPrograms; ++p) {
    children.push_back(fork());
    if (children.back() != 0) continue;
    try {
      Database d(path_);
      d.run("CREATE TABLE IF NOT EXISTS t (i INTEGER)");
      for (int i = 0; i < kRows; ++i) {
        Transaction t(d);
        d.run("INSERT INTO t VALUES (?1)", i);
        t.commit();
      }
      _exit(0);
    } catch (...) { _exit(1); }
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  Database d(path_);
  EXPECT_EQ(rows_in(d), kPrograms * kRows);
}

TEST_F(Sqlite, MistakesNameTheFile) {
  spill(path_, "this is no database, and long enough to be read as the beginning of one");
  expect_error(ErrorKind::format, path_, [&] { Database d(path_); });
  expect_error(ErrorKind::io, "check the path", [&] { Database d("/nowhere/at/all.sqlite"); });
  Database d(folder_ / "other.sqlite");
  expect_error(ErrorKind::io, "syntax", [&] { d.run("SELECT FROM"); });
  d.run("CREATE TABLE t (i INTEGER PRIMARY KEY)");
  d.run("INSERT INTO t VALUES (1)");
  expect_error(ErrorKind::io, "UNIQUE", [&] { d.run("INSERT INTO t VALUES (1)"); });
  d.run("INSERT INTO t VALUES (2)");
}

}  // namespace
}  // namespace bp::io
