// What the tests of the program share: a folder with a small network and its CSV files, and bp run in it as a user
// does.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "bp/io.h"
#include "bp/rng.h"

namespace bp::app_test {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

inline std::string read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline int count_of(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

// <build>/tests/test_app beside <build>/bp.
inline std::string program() {
  return (fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "bp").string();
}

struct Outcome {
  int code = -1;
  std::string out, err;
};

class App : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = (fs::path(::testing::TempDir()) / ("bp_app_test." + std::to_string(getpid()))).string();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write_data("t.csv", 256, 1);
    write_data("test.csv", 50, 2);
    write("net.toml", kNet);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(at(name)) << text; }

  // Two classes, inside and outside of a circle.
  void write_data(const std::string& name, int rows, std::uint64_t seed) const {
    Rng rng{Key{seed}};
    std::ofstream file(at(name));
    file << "x,y,where\n";
    for (int i = 0; i < rows; ++i) {
      const double x = rng.normal(), y = rng.normal();
      file << x << ',' << y << ',' << (x * x + y * y < 1.4 ? "inside" : "outside") << '\n';
    }
  }

  pid_t start(const std::vector<std::string>& arguments, long file_limit = 0) const {
    const pid_t child = fork();
    if (child != 0) return child;
    if (chdir(folder_.c_str()) != 0) _exit(99);
    dup2(open("out", O_CREAT | O_TRUNC | O_WRONLY, 0600), 1);
    dup2(open("err", O_CREAT | O_TRUNC | O_WRONLY, 0600), 2);
    if (file_limit > 0) {
      const rlimit limit{static_cast<rlim_t>(file_limit), static_cast<rlim_t>(file_limit)};
      setrlimit(RLIMIT_FSIZE, &limit);
      signal(SIGXFSZ, SIG_IGN);
    }
    const std::string binary = program();
    std::vector<char*> argv{const_cast<char*>(binary.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(binary.c_str(), argv.data());
    _exit(98);
  }
  Outcome finish(pid_t child) const {
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), read(at("out")), read(at("err"))};
  }
  struct Terminal {
    unsigned short width = 0;  // 0: it does not know
    std::vector<std::pair<std::string, std::string>> environment = {};
    int epochs = 12;
    unsigned short later = 0;  // its width from the second epoch on; 0: it stays
  };
  // What `bp train net.toml` shows in a terminal; none where the system has no pseudo-terminals.
  std::optional<std::string> shown_in(const Terminal& t) const {
    int terminal = -1;
    winsize size{24, t.width, 0, 0};
    const std::string epochs = "train.epochs=" + std::to_string(t.epochs);
    const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
    if (child < 0) return std::nullopt;
    if (child == 0) {
      if (chdir(folder_.c_str()) != 0) _exit(99);
      for (const char* name : {"COLUMNS", "NO_COLOR", "TERM"}) unsetenv(name);
      for (const auto& [name, value] : t.environment) setenv(name.c_str(), value.c_str(), 1);
      execl(program().c_str(), "bp", "train", "net.toml", "--out", "run", "--set", epochs.c_str(),
            static_cast<char*>(nullptr));
      _exit(98);
    }
    std::string shown;
    char part[1024];
    bool resized = t.later == 0;
    for (ssize_t n = 0; (n = ::read(terminal, part, sizeof part)) > 0;) {
      shown.append(part, static_cast<std::size_t>(n));
      if (resized || shown.find("epoch 2/") == std::string::npos) continue;
      resized = true;
      size.ws_col = t.later;
      EXPECT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);  // sends SIGWINCH
    }
    close(terminal);
    EXPECT_EQ(finish(child).code, 0);
    return shown;
  }
  Outcome bp(const std::vector<std::string>& arguments) const { return finish(start(arguments)); }

  // The first column of history.csv that is not a time.
  std::vector<std::string> losses(const std::string& run) const {
    std::vector<std::string> all;
    std::istringstream lines(read(at(run + "/history.csv")));
    for (std::string line; std::getline(lines, line);) {
      const auto seconds = line.rfind(',', line.rfind(',') - 1);
      all.push_back(line.substr(0, seconds));
    }
    return all;
  }

  static constexpr const char* kNet = R"(seed = 3
[data]
format = "csv"
train = "t.csv"
test = "test.csv"
target = "where"
validation_fraction = 0.2
[model]
input = [2]
layers = [
  { type = "linear", units = 16 },
  { type = "relu" },
  { type = "dropout", rate = 0.05 },
  { type = "linear", units = 2 },
]
[loss]
type = "cross_entropy"
[optimizer]
type = "adam"
lr = 2e-2
[schedule]
type = "cosine"
[train]
epochs = 12
batch = 16
threads = 1
)";
  std::string folder_;
};

}  // namespace bp::app_test
