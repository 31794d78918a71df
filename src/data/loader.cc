// DataLoader: threads fetch batches ahead into a ring of slots; the consumer takes them in order. Batches are numbered
// through all epochs, so the first ones of the next epoch are fetched while the consumer evaluates.
#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "bp/data.h"

namespace bp::data {

namespace {
using Order = std::shared_ptr<const std::vector<std::int64_t>>;

std::int64_t batches_in(std::int64_t rows, const LoaderOptions& o) {
  const bool drop = o.drop_last.value_or(o.shuffle);
  return drop ? rows / o.batch_size : (rows + o.batch_size - 1) / o.batch_size;
}

void check(const LoaderOptions& o, std::int64_t rows) {
  if (o.batch_size < 1) fail(ErrorKind::value, "[loader] batch_size is {}: expected 1 or more", o.batch_size);
  if (o.threads < 0 || o.threads > 256) fail(ErrorKind::value, "[loader] threads is {}: expected 0 to 256", o.threads);
  if (o.depth < 1 || o.depth > 4096) fail(ErrorKind::value, "[loader] depth is {}: expected 1 to 4096", o.depth);
  if (batches_in(rows, o) == 0)
    fail(ErrorKind::value,
         "[loader] {} rows make no batch of {}: take a smaller batch_size, or keep the last one (drop_last = false)",
         rows, o.batch_size);
}
}  // namespace

struct DataLoader::Impl {
  struct Slot {
    bool ready = false;
    Batch batch;
    std::exception_ptr error;
  };

  Impl(std::shared_ptr<const Source> from, LoaderOptions o) : source(std::move(from)), options(o) {
    if (!source) fail(ErrorKind::value, "[loader] no source given");
    rows = source->size();
    check(options, rows);
    batches = batches_in(rows, options);
  }
  ~Impl() { stop(); }

  std::optional<Batch> next();
  Batch fetch(std::int64_t number);
  Order order(std::int64_t epoch);
  void start();
  void stop() noexcept;
  void work();

  std::shared_ptr<const Source> source;
  LoaderOptions options;
  std::int64_t rows = 0, batches = 0;
  LoaderState state;     // of the consumer
  bool resumed = false;  // restore() was called and nothing taken since

  std::mutex order_mutex;
  std::int64_t order_epoch[2] = {-1, -1};
  Order orders[2];

  std::mutex mutex;  // guards what follows
  std::condition_variable room, arrived;
  std::vector<Slot> slots;                 // batch `number` goes into slot number % depth
  std::int64_t wanted = 0, unclaimed = 0;  // next batch to hand out, next one to fetch
  bool stopping = false;
  std::vector<std::thread> threads;
};

// The permutation of an epoch. Two are kept: threads at the seam of two epochs need both.
Order DataLoader::Impl::order(std::int64_t epoch) {
  const std::lock_guard lock(order_mutex);
  const auto k = static_cast<std::size_t>(epoch % 2);
  if (order_epoch[k] != epoch) {
    const Key key = options.key.fold("shuffle").fold(static_cast<std::uint64_t>(epoch));
    orders[k] = std::make_shared<const std::vector<std::int64_t>>(permutation(rows, key));
    order_epoch[k] = epoch;
  }
  return orders[k];
}

Batch DataLoader::Impl::fetch(std::int64_t number) {
  const std::int64_t epoch = number / batches, first = number % batches * options.batch_size;
  const auto count = static_cast<std::size_t>(std::min(options.batch_size, rows - first));
  const Key key = options.key.fold("augment").fold(static_cast<std::uint64_t>(epoch));
  if (options.shuffle) {
    const Order shuffled = order(epoch);
    return source->fetch(std::span(*shuffled).subspan(static_cast<std::size_t>(first), count), key);
  }
  std::vector<std::int64_t> straight(count);
  std::iota(straight.begin(), straight.end(), first);
  return source->fetch(straight, key);
}

void DataLoader::Impl::start() {
  wanted = unclaimed = state.epoch * batches + state.batch;
  slots.assign(static_cast<std::size_t>(options.depth), Slot{});
  stopping = false;
  for (int i = 0; i < options.threads; ++i) threads.emplace_back([this] { work(); });
}

void DataLoader::Impl::stop() noexcept {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  room.notify_all();
  for (std::thread& t : threads) t.join();
  threads.clear();
  slots.clear();
}

void DataLoader::Impl::work() {
  std::unique_lock lock(mutex);
  for (;;) {
    room.wait(lock, [&] { return stopping || unclaimed < wanted + options.depth; });
    if (stopping) return;
    const std::int64_t number = unclaimed++;
    lock.unlock();
    Slot result{true, {}, nullptr};
    try {
      result.batch = fetch(number);
    } catch (...) { result.error = std::current_exception(); }
    lock.lock();
    slots[static_cast<std::size_t>(number % options.depth)] = std::move(result);
    arrived.notify_one();
  }
}

std::optional<Batch> DataLoader::Impl::next() {
  resumed = false;
  if (state.batch == batches) {
    state = {state.epoch + 1, 0};
    return std::nullopt;
  }
  if (options.threads == 0) {
    Batch batch = fetch(state.epoch * batches + state.batch);
    ++state.batch;
    return batch;
  }
  if (threads.empty()) start();
  Slot taken;
  {
    std::unique_lock lock(mutex);
    Slot& slot = slots[static_cast<std::size_t>(wanted % options.depth)];
    arrived.wait(lock, [&] { return slot.ready; });
    taken = std::exchange(slot, Slot{});
    ++wanted;
  }
  room.notify_one();
  if (taken.error) {
    stop();  // the next call starts again at this batch
    std::rethrow_exception(taken.error);
  }
  ++state.batch;
  return std::move(taken.batch);
}

DataLoader::DataLoader(std::shared_ptr<const Source> source, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(source), options)) {}
DataLoader::DataLoader(ArrayDataset dataset, LoaderOptions options)
    : DataLoader(std::make_shared<const ArrayDataset>(std::move(dataset)), options) {}
DataLoader::~DataLoader() = default;
DataLoader::DataLoader(DataLoader&&) noexcept = default;
DataLoader& DataLoader::operator=(DataLoader&&) noexcept = default;

std::int64_t DataLoader::batches() const noexcept { return impl_->batches; }
const Source& DataLoader::source() const noexcept { return *impl_->source; }
const LoaderOptions& DataLoader::options() const noexcept { return impl_->options; }
LoaderState DataLoader::state() const noexcept { return impl_->state; }
std::optional<Batch> DataLoader::next() { return impl_->next(); }

void DataLoader::restore(LoaderState state) {
  constexpr std::int64_t kMaxEpoch = std::int64_t{1} << 32;
  if (state.epoch < 0 || state.epoch > kMaxEpoch || state.batch < 0 || state.batch > impl_->batches)
    fail(ErrorKind::value, "[loader] cannot resume at epoch {}, batch {}: an epoch has {} batches", state.epoch,
         state.batch, impl_->batches);
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
