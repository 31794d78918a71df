// The trials of a search in DIR/study.sqlite, shared by workers: who does which, how far they came, which stopped at a
// rung. Several processes may use one at once; what a killed one was at is taken up by the next that asks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/sqlite.h"
#include "train/search.h"

namespace bp::train {

struct Trial {
  std::int64_t number = 0;
  // "running", "interrupted" (both are gone on with), "finished", "pruned", "diverged", "failed"
  std::string state;
  double value = 0;  // the watched metric; NaN when there is none yet. Pruned: of its last rung
  std::int64_t epochs = 0;
  double seconds = 0;  // of training
  std::string reason;
};

// A file that one process at a time holds; the system lets go of it when that process ends, however it ends.
class FileLock {
 public:
  // Without waiting: empty when another holds it. Throws Error(io) when the file cannot be made.
  static std::optional<FileLock> take(const std::string& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int file) : file_(file) {}
  int file_;
};

struct Claim {
  Trial trial;
  FileLock lock;  // held while the trial runs
};

class Study {
 public:
  // Opens or makes DIR/study.sqlite. `definition` is what all trials have in common: a study of another one is refused
  // with Error(state), which names the first line that differs. Throws as io::Database does.
  Study(const std::string& folder, const std::string& definition);

  // The next trial to do below `trials`: one that was left, or a new one, whose folder is made. Empty: none is left
  // that no other worker is at. A trial whose worker died three times has failed.
  std::optional<Claim> claim(std::int64_t trials);
  // How far a trial came.
  void progress(const Trial& trial);
  void end(const Trial& trial);

  // Records the cost of a trial at a rung and decides whether it goes on (search.h); asked again, as after a resume, it
  // answers as before.
  bool passes_rung(std::int64_t number, std::int64_t epoch, double cost, std::int64_t eta);
  std::map<std::int64_t, double> rungs(std::int64_t number);  // its costs by epoch
  // Whether it was stopped at a rung.
  bool stopped(std::int64_t number);

  std::vector<Trial> trials();                       // by number
  std::string folder_of(std::int64_t number) const;  // DIR/trial-007

 private:
  void begin(const std::string& definition);
  std::optional<Claim> take(const Trial& trial, std::int64_t deaths);
  std::string folder_;
  io::Database database_;
};

}  // namespace bp::train
