// Whole files, gzip, and writing that leaves the old file when anything goes wrong.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <csignal>

#include "helpers.h"
#include "io/file.h"

namespace bp::io {
namespace {

std::string gzip(const std::string& content) {
  TempDir dir;
  const std::string path = dir / "x.gz";
  gzFile f = gzopen(path.c_str(), "wb6");
  gzwrite(f, content.data(), static_cast<unsigned>(content.size()));
  gzclose(f);
  return slurp(path);
}

std::string text_of(const Buffer& b) { return {b.as<char>(), b.bytes()}; }

// Sets a limit of this process for the life of the object.
class Limit {
 public:
  Limit(decltype(RLIMIT_FSIZE) which, rlim_t bytes) : which_(which) {
    ::getrlimit(which_, &old_);
    rlimit now = old_;
    now.rlim_cur = bytes;
    ::setrlimit(which_, &now);
  }
  ~Limit() { ::setrlimit(which_, &old_); }

 private:
  decltype(RLIMIT_FSIZE) which_;
  rlimit old_{};
};

TEST(ReadFile, PlainEmptyAndGzip) {
  TempDir dir;
  std::string big(300000, 'a');
  for (std::size_t i = 0; i < big.size(); i += 7) big[i] = static_cast<char>(i);
  for (const std::string& content : {std::string(), std::string("hello"), big}) {
    spill(dir / "plain", content);
    spill(dir / "packed", gzip(content));
    EXPECT_EQ(text_of(read_file(dir / "plain")), content);
    EXPECT_EQ(text_of(read_file(dir / "packed")), content);
  }
  spill(dir / "two", gzip("one, ") + gzip("two"));
  EXPECT_EQ(text_of(read_file(dir / "two")), "one, two");
}

TEST(ReadFile, ReadsPipes) {
  TempDir dir;
  const std::string fifo = dir / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    spill(fifo, std::string(3000000, 'z'));
    ::_exit(0);
  }
  EXPECT_EQ(text_of(read_file(fifo)), std::string(3000000, 'z'));
  ::waitpid(child, nullptr, 0);
}

TEST(ReadFile, NamesWhatIsWrong) {
  TempDir dir;
  expect_error(ErrorKind::io, "No such file", [&] { read_file(dir / "missing"); });
  expect_error(ErrorKind::io, "directory", [&] { read_file(dir / "."); });
}

TEST(ReadFile, RefusesMoreThanTheLimit) {
  TempDir dir;
  spill(dir / "plain", std::string(1000, 'a'));
  EXPECT_EQ(read_file(dir / "plain", {1000}).bytes(), 1000u);
  expect_error(ErrorKind::format, "limit of 999", [&] { read_file(dir / "plain", {999}); });
  // 20 MB from 20 kB: the bound holds against the content, not the file.
  spill(dir / "bomb", gzip(std::string(20'000'000, '\0')));
  expect_error(ErrorKind::format, "limit of 1000000", [&] { read_file(dir / "bomb", {1'000'000}); });
  EXPECT_EQ(read_file(dir / "bomb", {20'000'000}).bytes(), 20'000'000u);
  expect_error(ErrorKind::format, "limit", [&] { read_file("/dev/zero", {100'000}); });
}

TEST(ReadFile, RefusesDamagedGzip) {
  TempDir dir;
  const std::string packed = gzip("some text that is long enough to be compressed, compressed, compressed");
  spill(dir / "cut", packed.substr(0, packed.size() - 9));
  expect_error(ErrorKind::format, "truncated", [&] { read_file(dir / "cut"); });
  spill(dir / "tail", packed + "tail");
  expect_error(ErrorKind::format, "garbage", [&] { read_file(dir / "tail"); });
  std::string wrong_sum = packed;
  wrong_sum[packed.size() - 6] ^= 1;
  spill(dir / "sum", wrong_sum);
  expect_error(ErrorKind::format, "corrupt", [&] { read_file(dir / "sum"); });
  // The trailing size is only a hint: a huge one neither fails nor allocates 4 GB.
  const int refused = damage(packed, [](Bytes b) {
    if (is_gzip(b)) inflate_gzip(b, "damaged", 1 << 20);
  });
  EXPECT_GT(refused, 100);
}

TEST(AtomicWriter, ReplacesOnlyOnCommit) {
  TempDir dir;
  const std::string path = dir / "file";
  spill(path, "old");
  {
    AtomicWriter w(path);
    w.write("new");
    EXPECT_EQ(slurp(path), "old");
  }
  EXPECT_EQ(slurp(path), "old");
  EXPECT_EQ(dir.names().size(), 1u);
  AtomicWriter w(path);
  const std::string big(5'000'000, 'b');
  w.write("new");
  w.write(big);
  w.commit();
  EXPECT_EQ(slurp(path), "new" + big);
  EXPECT_EQ(dir.names().size(), 1u);
  expect_error(ErrorKind::state, "commit", [&] { w.write("more"); });
}

TEST(AtomicWriter, KeepsTheModeAndFollowsLinks) {
  TempDir dir;
  spill(dir / "file", "old");
  ::chmod((dir / "file").c_str(), 0640);
  std::filesystem::create_symlink("file", dir / "link");
  write_file(dir / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_EQ(slurp(dir / "file"), "new");
  struct stat info {};
  ::stat((dir / "file").c_str(), &info);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

TEST(AtomicWriter, ADiskThatFillsUpLeavesTheOldFile) {
  TempDir dir;
  const std::string path = dir / "file";
  spill(path, "old");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    const Limit limit(RLIMIT_FSIZE, 10000);
    expect_error(ErrorKind::io, "too large", [&] { write_file(path, std::string(20000, 'x')); });
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(slurp(path), "old");
  EXPECT_EQ(dir.names(), std::vector<std::string>{"file"});
  // A device that answers ENOSPC, written directly as devices are.
  expect_error(ErrorKind::io, "free some space", [&] { write_file("/dev/full", "x"); });
}

TEST(AtomicWriter, SaysWhyItCannotWrite) {
  TempDir dir;
  expect_error(ErrorKind::io, "No such file", [&] { write_file(dir / "none/file", "x"); });
  expect_error(ErrorKind::io, "directory", [&] { write_file(dir / ".", "x"); });
  spill(dir / "file", "x");
  expect_error(ErrorKind::io, "a part of the path is a file", [&] { write_file(dir / "file/inner", "x"); });
  if (::geteuid() != 0) {
    std::filesystem::permissions(dir / ".", std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    expect_error(ErrorKind::io, "permission", [&] { write_file(dir / "new", "x"); });
    std::filesystem::permissions(dir / ".", std::filesystem::perms::owner_all);
  }
}

TEST(History, AppendsResumesAndRefusesAnotherRun) {
  TempDir dir;
  const std::string path = dir / "history.csv";
  {
    HistoryWriter h(path, {"epoch", "loss", "accuracy"});
    h.append(std::vector<double>{1, 0.5, NAN});
    h.append(std::vector<double>{2, 0.25, 0.875});
    EXPECT_EQ(slurp(path), "epoch,loss,accuracy\n1,0.5,\n2,0.25,0.875\n");
    expect_error(ErrorKind::value, "2 values for 3 columns", [&] { h.append(std::vector<double>{1, 2}); });
  }
  spill(path, slurp(path) + "3,0.1");  // torn by a crash
  {
    HistoryWriter h(path, {"epoch", "loss", "accuracy"}, 1);
    h.append(std::vector<double>{2, 0.125, 1});
  }
  EXPECT_EQ(slurp(path), "epoch,loss,accuracy\n1,0.5,\n2,0.125,1\n");
  expect_error(ErrorKind::format, "has 2 rows, 3", [&] { HistoryWriter(path, {"epoch", "loss", "accuracy"}, 3); });
  expect_error(ErrorKind::format, "header", [&] { HistoryWriter(path, {"epoch", "loss"}, 1); });
  expect_error(ErrorKind::value, "column", [&] { HistoryWriter(path, {"a,b"}); });
}

TEST(History, AFullDiskLeavesNoTornRow) {
  TempDir dir;
  const std::string path = dir / "history.csv";
  HistoryWriter h(path, {"epoch", "loss"});
  h.append(std::vector<double>{1, 0.5});
  const std::string whole = slurp(path);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    const Limit limit(RLIMIT_FSIZE, whole.size() + 3);
    expect_error(ErrorKind::io, "too large", [&] { h.append(std::vector<double>{2, 0.123456}); });
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(slurp(path), whole);
  h.append(std::vector<double>{2, 0.125});
  EXPECT_EQ(slurp(path), whole + "2,0.125\n");
}

}  // namespace
}  // namespace bp::io
