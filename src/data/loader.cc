// DataLoader: threads fetch batches ahead into a ring of slots; the consumer takes them in order. Batches are numbered
// through all epochs, so the first ones of the next epoch are fetched while the consumer evaluates.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "base/error.h"
#include "bp/data.h"

namespace bp::data {

namespace {
using Clock = std::chrono::steady_clock;
using Table = std::shared_ptr<const std::vector<std::int64_t>>;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::int64_t batches_in(std::int64_t rows, const LoaderOptions& o) {
  const bool drop = o.drop_last.value_or(o.shuffle);
  return drop ? rows / o.batch_size : (rows + o.batch_size - 1) / o.batch_size;
}

void check_loader_options(const LoaderOptions& o, std::int64_t rows) {
  if (o.batch_size < 1) fail(ErrorKind::value, "[loader] batch_size is {}: expected 1 or more", o.batch_size);
  if (o.threads < 0 || o.threads > 256) fail(ErrorKind::value, "[loader] threads is {}: expected 0 to 256", o.threads);
  if (o.depth < 1 || o.depth > 4096) fail(ErrorKind::value, "[loader] depth is {}: expected 1 to 4096", o.depth);
  if (!(o.timeout >= 0 && o.timeout <= 1e9))
    fail(ErrorKind::value, "[loader] timeout is {}: expected seconds, or 0 for none", o.timeout);
  if (batches_in(rows, o) == 0)
    fail(ErrorKind::value,
         "[loader] {} rows make no batch of {}: take a smaller batch_size, or keep the last one (drop_last = false)",
         rows, o.batch_size);
}

}  // namespace

// What a batch is made of, whichever thread makes it.
class Fetcher {
 public:
  Fetcher(std::shared_ptr<const Source> from, LoaderOptions o) : options(o), source_(std::move(from)) {
    if (!source_) fail(ErrorKind::value, "[loader] no source given");
    rows = source_->size();
    check_loader_options(options, rows);
    batches = batches_in(rows, options);
  }
  const Source& source() const noexcept { return *source_; }
  Batch fetch(std::int64_t number);

  const LoaderOptions options;
  std::int64_t rows = 0, batches = 0;

 private:
  Table table(std::int64_t epoch, Key key);
  std::shared_ptr<const Source> source_;
  std::mutex mutex_;
  std::int64_t table_epoch_[2] = {-1, -1};
  Table tables_[2];
};

// The permutation of an epoch. Two are kept: threads at the seam of two epochs need both.
Table Fetcher::table(std::int64_t epoch, Key key) {
  const std::lock_guard lock(mutex_);
  const auto k = static_cast<std::size_t>(epoch % 2);
  if (table_epoch_[k] != epoch) {
    tables_[k] = std::make_shared<const std::vector<std::int64_t>>(permutation(rows, key));
    table_epoch_[k] = epoch;
  }
  return tables_[k];
}

Batch Fetcher::fetch(std::int64_t number) {
  const std::int64_t epoch = number / batches, first = number % batches * options.batch_size;
  const auto count = static_cast<std::size_t>(std::min(options.batch_size, rows - first));
  const Key key = options.key.fold("augment").fold(static_cast<std::uint64_t>(epoch));
  const bool shuffled = options.shuffle && !source_->reads_forward();
  const Key order = options.key.fold("shuffle").fold(static_cast<std::uint64_t>(epoch));
  if (shuffled && rows <= kTabledRows) {
    const Table all = table(epoch, order);
    return source_->fetch(std::span(*all).subspan(static_cast<std::size_t>(first), count), key);
  }
  std::vector<std::int64_t> places(count);
  std::iota(places.begin(), places.end(), first);
  if (shuffled) std::transform(places.begin(), places.end(), places.begin(), Permutation(rows, order));
  return source_->fetch(places, key);
}

// The threads and their ring. They share it, so that one that hangs in the source can be left behind.
class Crew {
 public:
  explicit Crew(std::shared_ptr<Fetcher> fetcher, std::int64_t first)
      : fetcher_(std::move(fetcher)),
        slots_(static_cast<std::size_t>(fetcher_->options.depth)),
        wanted_(first),
        unclaimed_(first) {}
  static void start(const std::shared_ptr<Crew>& crew) {
    for (int i = 0; i < crew->fetcher_->options.threads; ++i) {
      crew->threads_.emplace_back([crew] { crew->work(); });
      ++crew->started_;
    }
  }
  Batch take();
  void stop() noexcept;
  LoaderStats stats() const {  // of fetching
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  struct Slot {
    bool ready = false;
    Batch batch;
    std::exception_ptr error;
  };
  void work();
  Slot fetch(std::int64_t number, double& seconds) const;
  void note(std::int64_t number, double seconds);
  [[noreturn]] void timed_out();

  const std::shared_ptr<Fetcher> fetcher_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable room_, arrived_, left_;
  std::vector<Slot> slots_;          // batch `number` goes into slot number % depth
  std::int64_t wanted_, unclaimed_;  // next batch to hand out, next one to fetch
  int ended_ = 0;                    // threads that are done
  bool stopping_ = false;
  bool hangs_ = false;  // a batch has not come in time: nobody waits for its thread
  LoaderStats stats_;
  std::vector<std::thread> threads_;  // the consumer's
  int started_ = 0;
};

Crew::Slot Crew::fetch(std::int64_t number, double& seconds) const {
  const Clock::time_point start = Clock::now();
  Slot result{true, {}, nullptr};
  try {
    result.batch = fetcher_->fetch(number);
  } catch (...) { result.error = std::current_exception(); }
  seconds = seconds_since(start);
  return result;
}

void Crew::note(std::int64_t number, double seconds) {
  stats_.fetching += seconds;
  if (seconds <= stats_.slowest) return;
  stats_.slowest = seconds;
  stats_.slowest_epoch = number / fetcher_->batches;
  stats_.slowest_batch = number % fetcher_->batches;
}

void Crew::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [&] { return stopping_ || unclaimed_ < wanted_ + fetcher_->options.depth; });
    if (stopping_) break;
    const std::int64_t number = unclaimed_++;
    lock.unlock();
    double seconds = 0;
    Slot result = fetch(number, seconds);
    lock.lock();
    note(number, seconds);
    slots_[static_cast<std::size_t>(number % fetcher_->options.depth)] = std::move(result);
    arrived_.notify_one();
  }
  ++ended_;
  left_.notify_all();
}

void Crew::timed_out() {
  hangs_ = true;
  fail(ErrorKind::io,
       "[loader] {}: epoch {}, batch {} has not come for {} s: the source is slow or hangs. Look at its disk, network "
       "or "
       "decoding; a longer timeout waits on",
       fetcher_->source().name(), wanted_ / fetcher_->batches, wanted_ % fetcher_->batches, fetcher_->options.timeout);
}

Batch Crew::take() {
  Slot taken;
  {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[static_cast<std::size_t>(wanted_ % fetcher_->options.depth)];
    const auto ready = [&] { return slot.ready; };
    const double timeout = fetcher_->options.timeout;
    if (timeout <= 0) {
      arrived_.wait(lock, ready);
    } else if (!arrived_.wait_for(lock, std::chrono::duration<double>(timeout), ready)) {
      timed_out();
    }
    taken = std::exchange(slot, Slot{});
    ++wanted_;
  }
  room_.notify_one();
  if (taken.error) std::rethrow_exception(taken.error);
  return std::move(taken.batch);
}

// Waits for the threads, but with a timeout no longer than that, and not again for one that hangs.
void Crew::stop() noexcept {
  bool all = true;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    room_.notify_all();
    const double timeout = fetcher_->options.timeout;
    if (hangs_)
      all = ended_ == started_;
    else if (timeout > 0)
      all = left_.wait_for(lock, std::chrono::duration<double>(timeout), [&] { return ended_ == started_; });
  }
  for (std::thread& t : threads_) all ? t.join() : t.detach();
  threads_.clear();
}

struct DataLoader::Impl {
  Impl(std::shared_ptr<const Source> from, LoaderOptions o) : fetcher(std::make_shared<Fetcher>(std::move(from), o)) {}
  ~Impl() { stop(); }

  std::optional<Batch> next();
  Batch take();
  void stop() noexcept;
  LoaderStats all_stats() const;

  std::shared_ptr<Fetcher> fetcher;
  std::shared_ptr<Crew> crew;  // null: no threads run
  LoaderState state;           // of the consumer
  bool resumed = false;        // restore() was called and nothing taken since
  LoaderStats stats;           // without what the crew that runs has fetched
};

namespace {
void add_fetching(LoaderStats& to, const LoaderStats& more) {
  to.fetching += more.fetching;
  if (more.slowest <= to.slowest) return;
  to.slowest = more.slowest;
  to.slowest_epoch = more.slowest_epoch;
  to.slowest_batch = more.slowest_batch;
}
std::uint64_t bytes_of(const Array& a) { return a.buffer ? a.bytes() : 0; }
}  // namespace

void DataLoader::Impl::stop() noexcept {
  if (!crew) return;
  crew->stop();
  add_fetching(stats, crew->stats());
  crew.reset();
}

LoaderStats DataLoader::Impl::all_stats() const {
  LoaderStats all = stats;
  if (crew) add_fetching(all, crew->stats());
  return all;
}

// The batch of `state`. After an error the next call starts again at this batch.
Batch DataLoader::Impl::take() {
  const std::int64_t number = state.epoch * fetcher->batches + state.batch;
  if (fetcher->options.threads == 0) {
    const Clock::time_point start = Clock::now();
    Batch batch = fetcher->fetch(number);
    const double seconds = seconds_since(start);
    add_fetching(stats,
                 {.fetching = seconds, .slowest = seconds, .slowest_epoch = state.epoch, .slowest_batch = state.batch});
    return batch;
  }
  try {
    if (!crew) {
      crew = std::make_shared<Crew>(fetcher, number);
      Crew::start(crew);
    }
    return crew->take();
  } catch (...) {
    stop();
    throw;
  }
}

std::optional<Batch> DataLoader::Impl::next() {
  resumed = false;
  if (state.batch == fetcher->batches) {
    state = {state.epoch + 1, 0};
    return std::nullopt;
  }
  const Clock::time_point start = Clock::now();
  Batch batch = take();
  const double waited = seconds_since(start);
  ++state.batch;
  ++stats.batches;
  stats.bytes += bytes_of(batch.x) + bytes_of(batch.y);
  stats.waited += waited;
  stats.longest_wait = std::max(stats.longest_wait, waited);
  return batch;
}

DataLoader::DataLoader(std::shared_ptr<const Source> source, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(source), options)) {}
DataLoader::DataLoader(ArrayDataset dataset, LoaderOptions options)
    : DataLoader(std::make_shared<const ArrayDataset>(std::move(dataset)), options) {}
DataLoader::~DataLoader() = default;
DataLoader::DataLoader(DataLoader&&) noexcept = default;
DataLoader& DataLoader::operator=(DataLoader&&) noexcept = default;

std::int64_t DataLoader::batches() const noexcept { return impl_->fetcher->batches; }
const Source& DataLoader::source() const noexcept { return impl_->fetcher->source(); }
const LoaderOptions& DataLoader::options() const noexcept { return impl_->fetcher->options; }
LoaderState DataLoader::state() const noexcept { return impl_->state; }
LoaderStats DataLoader::stats() const { return impl_->all_stats(); }
std::optional<Batch> DataLoader::next() { return impl_->next(); }

void DataLoader::restore(LoaderState state) {
  constexpr std::int64_t kMaxEpoch = std::int64_t{1} << 32;
  if (state.epoch < 0 || state.epoch > kMaxEpoch || state.batch < 0 || state.batch > batches())
    fail(ErrorKind::value, "[loader] cannot resume at epoch {}, batch {}: an epoch has {} batches", state.epoch,
         state.batch, batches());
  impl_->stop();
  impl_->state = state;
  impl_->resumed = true;
}

DataLoader::Iterator DataLoader::begin() {
  if (impl_->state.batch != 0 && !impl_->resumed) {
    impl_->stop();
    impl_->state = {impl_->state.epoch + 1, 0};
  }
  return Iterator(this);
}

}  // namespace bp::data
