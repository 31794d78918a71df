// DataLoader: every row once an epoch, the same batches for any number of threads, resume, errors, shutdown.
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "bp/data.h"
#include "io/helpers.h"

namespace bp::data {
namespace {

using Rows = std::vector<std::int64_t>;

ArrayDataset numbered(std::int64_t n) {
  Rows v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return ArrayDataset(Array::from(v, {n, 1}), Array::from(v, {n}));
}

Rows rows_of(const Batch& b) {
  const auto v = b.y.values<std::int64_t>();
  return {v.begin(), v.end()};
}

std::vector<Rows> epoch(DataLoader& loader) {
  std::vector<Rows> out;
  for (auto& [x, y] : loader) {
    EXPECT_TRUE(std::equal(y.values<std::int64_t>().begin(), y.values<std::int64_t>().end(), x.data<std::int64_t>()));
    out.push_back(rows_of({x, y}));
  }
  return out;
}

TEST(DataLoader, VisitsEveryRowOnceAndReshuffles) {
  DataLoader loader(numbered(103), {.batch_size = 10, .key = Key(1), .drop_last = false});
  EXPECT_EQ(loader.batches(), 11);
  const auto first = epoch(loader), second = epoch(loader);
  ASSERT_EQ(first.size(), 11u);
  EXPECT_EQ(first.back().size(), 3u);
  for (const auto& e : {first, second}) {
    std::set<std::int64_t> seen;
    for (const Rows& b : e) seen.insert(b.begin(), b.end());
    EXPECT_EQ(seen.size(), 103u);
  }
  EXPECT_NE(first, second);
}

TEST(DataLoader, TrainingDropsTheLastBatchEvaluationKeepsIt) {
  EXPECT_EQ(DataLoader(numbered(103), {.batch_size = 10}).batches(), 10);
  DataLoader evaluation(numbered(25), {.batch_size = 10, .shuffle = false});
  const auto batches = epoch(evaluation);
  EXPECT_EQ(batches, epoch(evaluation));
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[2], (Rows{20, 21, 22, 23, 24}));
}

TEST(DataLoader, TheBatchesDoNotDependOnThreadsOrDepth) {
  std::vector<std::vector<Rows>> expected;
  for (const auto& [threads, depth] : {std::pair{0, 1}, {1, 1}, {1, 4}, {3, 2}, {4, 16}, {8, 100}}) {
    DataLoader loader(numbered(57), {.batch_size = 4, .key = Key(9), .threads = threads, .depth = depth});
    std::vector<std::vector<Rows>> got;
    for (int e = 0; e < 5; ++e) got.push_back(epoch(loader));
    if (expected.empty()) expected = got;
    EXPECT_EQ(got, expected) << threads << " threads";
  }
  DataLoader other(numbered(57), {.batch_size = 4, .key = Key(10)});
  EXPECT_NE(epoch(other), expected[0]);
}

TEST(DataLoader, ResumesExactlyWhereItWas) {
  const LoaderOptions options = {.batch_size = 5, .key = Key(4), .threads = 2};
  DataLoader whole(numbered(42), options);
  std::vector<std::pair<LoaderState, Rows>> history;  // state before the batch, the batch
  for (int e = 0; e < 3; ++e)
    for (LoaderState before = whole.state();; before = whole.state()) {
      const auto b = whole.next();
      history.emplace_back(before, b ? rows_of(*b) : Rows{});
      if (!b) break;
    }
  EXPECT_EQ(whole.state(), (LoaderState{3, 0}));
  for (std::size_t start = 0; start < history.size(); ++start) {
    DataLoader resumed(numbered(42), options);
    resumed.restore(history[start].first);
    EXPECT_EQ(resumed.state(), history[start].first);
    for (std::size_t i = start; i < std::min(start + 12, history.size()); ++i) {
      const auto b = resumed.next();
      EXPECT_EQ(b ? rows_of(*b) : Rows{}, history[i].second);
    }
  }
  DataLoader rest(numbered(42), options);
  rest.restore({1, 6});
  EXPECT_EQ(epoch(rest).size(), 2u);  // the loop finishes the epoch
  EXPECT_EQ(epoch(rest).size(), 8u);
  expect_error(ErrorKind::value, "epoch has 8 batches", [&] { rest.restore({0, 9}); });
  expect_error(ErrorKind::value, "cannot resume", [&] { rest.restore({-1, 0}); });
}

TEST(DataLoader, ALoopLeftEarlyIsNotContinued) {
  DataLoader loader(numbered(40), {.batch_size = 10, .key = Key(2)});
  const auto first = epoch(loader), second = epoch(loader);
  loader.restore({0, 0});
  for (const Batch& b : loader) {
    EXPECT_EQ(rows_of(b), first[0]);
    EXPECT_EQ(loader.state(), (LoaderState{0, 1}));
    break;
  }
  EXPECT_EQ(epoch(loader), second);
}

// Fails at one row; draws from the key it is given.
class Faulty final : public Source {
 public:
  std::int64_t size() const override { return 30; }
  Batch fetch(std::span<const std::int64_t> rows, Key key) const override {
    for (std::int64_t r : rows)
      if (r == 17 && broken) throw Error(ErrorKind::io, "row 17 is gone");
    ++fetched;
    if (delay_ms != 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    Array x = Array::empty(i64, {static_cast<std::int64_t>(rows.size())});
    for (std::size_t i = 0; i < rows.size(); ++i)
      x.mutable_data<std::int64_t>()[i] =
          static_cast<std::int64_t>(key.fold(static_cast<std::uint64_t>(rows[i])).value >> 1);
    return {x, Array::from(Rows(rows.begin(), rows.end()), {static_cast<std::int64_t>(rows.size())})};
  }
  std::atomic<bool> broken{true};
  mutable std::atomic<int> fetched{0};
  int delay_ms = 0;
};

TEST(DataLoader, RethrowsInPlaceAndTriesAgain) {
  for (int threads : {0, 1, 3}) {
    const auto source = std::make_shared<Faulty>();
    DataLoader loader(source, {.batch_size = 5, .shuffle = false, .threads = threads});
    for (int i = 0; i < 3; ++i) EXPECT_EQ(rows_of(*loader.next())[0], 5 * i);
    for (int i = 0; i < 2; ++i) {
      expect_error(ErrorKind::io, "row 17", [&] { loader.next(); });
      EXPECT_EQ(loader.state(), (LoaderState{0, 3}));
    }
    source->broken = false;
    EXPECT_EQ(rows_of(*loader.next())[0], 15);
  }
}

TEST(DataLoader, AugmentationBelongsToTheEpochAndTheRow) {
  const auto source = std::make_shared<Faulty>();
  source->broken = false;
  const auto draws = [&](std::int64_t batch_size, bool shuffle, int threads) {
    DataLoader loader(source, {.batch_size = batch_size, .shuffle = shuffle, .key = Key(3), .threads = threads});
    std::vector<std::map<std::int64_t, std::int64_t>> out(2);
    for (auto& seen : out)
      for (const auto& [x, y] : loader)
        for (std::int64_t i = 0; i < y.rows(); ++i) seen[y.data<std::int64_t>()[i]] = x.data<std::int64_t>()[i];
    return out;
  };
  const auto reference = draws(5, true, 1);
  EXPECT_EQ(reference, draws(10, false, 3));
  EXPECT_NE(reference[0], reference[1]);
}

TEST(DataLoader, FetchesAheadButNotTooFar) {
  const auto source = std::make_shared<Faulty>();
  source->broken = false;
  DataLoader loader(source, {.batch_size = 1, .threads = 4, .depth = 3});
  (void)loader.next();
  for (int i = 0; i < 200 && source->fetched < 4; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(source->fetched, 4);  // the one taken and three ahead
}

TEST(DataLoader, StopsInTheMiddleAndMoves) {
  for (int i = 0; i < 100; ++i) {
    const auto source = std::make_shared<Faulty>();
    source->broken = false;
    source->delay_ms = i % 2;
    DataLoader loader(source, {.batch_size = 2, .threads = 1 + i % 3, .depth = 1 + i % 4});
    for (int k = 0; k < i % 5; ++k) (void)loader.next();
    DataLoader moved = std::move(loader);
    EXPECT_EQ(moved.state().batch, i % 5);
    if (i % 3 == 0) (void)moved.next();
  }
}

// Hangs in one batch until it is let go.
class Stuck final : public Source {
 public:
  std::int64_t size() const override { return 12; }
  std::string name() const override { return "/net/slow.npy"; }
  Batch fetch(std::span<const std::int64_t> rows, Key) const override {
    for (; rows[0] == 8 && stuck; ++hanging) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const Array y = Array::from(Rows(rows.begin(), rows.end()), {static_cast<std::int64_t>(rows.size())});
    return {y, y};
  }
  std::atomic<bool> stuck{true};
  mutable std::atomic<int> hanging{0};  // turns of waiting
};

TEST(DataLoader, ASourceThatHangsIsNamedAndTriedAgain) {
  const auto source = std::make_shared<Stuck>();
  DataLoader loader(source, {.batch_size = 4, .shuffle = false, .threads = 2, .timeout = 0.05});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(rows_of(*loader.next())[0], 4 * i);
  for (int i = 0; i < 2; ++i)
    expect_error(ErrorKind::io, "/net/slow.npy: epoch 0, batch 2 has not come for 0.05 s", [&] { loader.next(); });
  source->stuck = false;
  EXPECT_EQ(rows_of(*loader.next())[0], 8);
}

TEST(DataLoader, GoesAlthoughAThreadHangs) {
  const auto source = std::make_shared<Stuck>();
  {
    DataLoader loader(source, {.batch_size = 4, .shuffle = false, .threads = 1, .timeout = 0.05});
    (void)loader.next();
    while (source->hanging == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GT(source.use_count(), 1);  // the thread holds it
  source->stuck = false;
  for (int i = 0; i < 1000 && source.use_count() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(source.use_count(), 1);
}

TEST(DataLoader, TellsWhatItWaitedFor) {
  for (int threads : {0, 2}) {
    const auto source = std::make_shared<Faulty>();
    source->broken = false;
    source->delay_ms = 10;
    DataLoader loader(source, {.batch_size = 5, .shuffle = false, .threads = threads});
    while (loader.next()) {}
    const LoaderStats s = loader.stats();
    EXPECT_EQ(s.batches, 6);
    EXPECT_EQ(s.bytes, 30u * 16);
    EXPECT_GE(s.fetching, 0.06);
    EXPECT_GE(s.waited, threads == 0 ? 0.06 : 0.01);
    EXPECT_GE(s.longest_wait, 0.01);
    EXPECT_LE(s.longest_wait, s.waited);
    EXPECT_GE(s.slowest, 0.01);
    EXPECT_EQ(s.slowest_epoch, 0);
  }
}

TEST(DataLoader, RefusesBadOptions) {
  expect_error(ErrorKind::value, "timeout is -1", [] { DataLoader(numbered(5), {.batch_size = 1, .timeout = -1}); });
  expect_error(ErrorKind::value, "batch_size is 0", [] { DataLoader(numbered(5), {.batch_size = 0}); });
  expect_error(ErrorKind::value, "threads is -1", [] { DataLoader(numbered(5), {.batch_size = 1, .threads = -1}); });
  expect_error(ErrorKind::value, "depth is 0", [] { DataLoader(numbered(5), {.batch_size = 1, .depth = 0}); });
  expect_error(ErrorKind::value, "5 rows make no batch of 6", [] { DataLoader(numbered(5), {.batch_size = 6}); });
  EXPECT_EQ(DataLoader(numbered(5), {.batch_size = 6, .drop_last = false}).batches(), 1);
  expect_error(ErrorKind::value, "no source", [] { DataLoader(std::shared_ptr<const Source>{}, {}); });
}

}  // namespace
}  // namespace bp::data
