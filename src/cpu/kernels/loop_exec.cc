// Running a CompiledLoop::Plan: threads over fixed chunks of rows, or over fixed chunks of the columns of few long
// rows.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/flush_denormals.h"
#include "base/random_word.h"
#include "cpu/kernels/loop_jit.h"
#include "cpu/kernels/loop_plan.h"
#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

using Plan = CompiledLoop::Plan;

// Joins partial results in f64; sums carry the rounding error along (Neumaier, 1974).
struct Joined {
  double value = 0, error = 0;

  void begin(LoopOp op) { value = start_of(op), error = 0; }
  void join(LoopOp op, double x) {
    switch (op) {
      case LoopOp::row_max:
      case LoopOp::column_max:
        if (!(value >= x) && !std::isnan(value)) value = x;
        break;
      case LoopOp::row_min:
      case LoopOp::column_min:
        if (!(value <= x) && !std::isnan(value)) value = x;
        break;
      case LoopOp::row_prod: value *= x; break;
      default: {
        const double sum = value + x;
        const double lost = std::fabs(value) >= std::fabs(x) ? (value - sum) + x : (x - sum) + value;
        if (std::isfinite(lost)) error += lost;
        value = sum;
      }
    }
  }
  double result() const { return value + error; }
};

double read(const void* p, bool wide) {
  return wide ? *static_cast<const double*>(p) : static_cast<double>(*static_cast<const float*>(p));
}
void write(void* p, bool wide, double v) {
  if (wide)
    *static_cast<double*>(p) = v;
  else
    *static_cast<float*>(p) = static_cast<float>(v);
}

// One thread's view of a run. Everything lives in the workspace: nothing is allocated.
class Worker {
 public:
  Worker(const Plan& plan, void* const* operands, char* memory, char* shared, int thread, int threads)
      : plan_(plan),
        operands_(operands),
        shared_(reinterpret_cast<double*>(shared)),
        thread_(thread),
        threads_(threads),
        wide_(plan.program.compute == f64) {
    slots_ = reinterpret_cast<char**>(memory);
    bases_ = slots_ + plan.slots.size();
    joined_ = reinterpret_cast<Joined*>(bases_ + plan.slots.size());
    scratch_ = memory + whole_lines(2 * plan.slots.size() * sizeof(char*) + plan.reductions.size() * sizeof(Joined));
    bind();
    prologue();
    uncached_ = !plan.uncached_outputs.empty() &&
                std::all_of(plan.uncached_outputs.begin(), plan.uncached_outputs.end(),
                            [&](int k) { return reinterpret_cast<std::uintptr_t>(place(k)) % 64 == 0; });
  }

  void run() {
    plan_.by_columns ? run_columns() : run_rows();
    if (uncached_) finish_stores();
  }

  // After a barrier, of rows: this thread's share of the columns of the chunks' partial results.
  void merge_columns() {
    if (plan_.accumulators.empty() || plan_.direct_accumulators()) return;
    const std::int64_t cols = plan_.program.cols;
    merge_range(cols * thread_ / threads_, cols * (thread_ + 1) / threads_);
  }

 private:
  void run_rows() {
    if (plan_.accumulators.empty()) {
      run_blocks(plan_.blocks * thread_ / threads_, plan_.blocks * (thread_ + 1) / threads_);
      return;
    }
    const std::int64_t end = plan_.chunks * (thread_ + 1) / threads_;
    for (std::int64_t chunk = plan_.chunks * thread_ / threads_; chunk < end; ++chunk) run_chunk(chunk);
    if (plan_.chunks == 0 && thread_ == 0) run_chunk(0);
  }

  // Every thread takes its chunks of each phase; row results are computed by all alike.
  void run_columns() {
    for (std::int64_t row = 0; row < plan_.program.rows; ++row) {
      begin_block(row, 1);
      for (const LoopPhase& phase : plan_.phases) {
        run_steps(phase.row_steps, 1, 1);
        const std::int64_t end = plan_.chunks * (thread_ + 1) / threads_;
        for (std::int64_t chunk = plan_.chunks * thread_ / threads_; chunk < end; ++chunk) column_chunk(phase, chunk);
        if (phase.reductions.empty()) continue;
        barrier();
        merge_row(phase);
      }
      if (plan_.program.rows > 1) barrier();  // partial results are free again
    }
  }

  void barrier() const {
    if (threads_ == 1) return;
#pragma omp barrier
  }

  char* slot(int s) const { return slots_[s]; }
  // Element offset 0 of operand k.
  char* place(int k) const {
    const LoopOperand& o = plan_.program.operands[static_cast<std::size_t>(k)];
    return static_cast<char*>(operands_[k]) + o.base * static_cast<std::int64_t>(size_of(o.dtype));
  }
  std::size_t width_of(int s) const {
    const std::size_t width = plan_.slots[static_cast<std::size_t>(s)].width;
    return width != 0 ? width : plan_.element_bytes();
  }

  void bind() {
    for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
      const LoopSlot& s = plan_.slots[i];
      switch (s.kind) {
        case LoopSlot::Kind::constant:
          slots_[i] = const_cast<char*>(reinterpret_cast<const char*>(plan_.constants.data())) + s.offset;
          break;
        case LoopSlot::Kind::scratch:
        case LoopSlot::Kind::tile_register: slots_[i] = scratch_ + s.offset; break;
        default: slots_[i] = place(s.operand);
      }
      bases_[i] = slots_[i];
    }
  }

  void prologue() {
    row_ = column_ = 0;
    for (int k : plan_.random_transfers) {
      const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(k)];
      const auto* state = reinterpret_cast<const std::int64_t*>(place(t.operand));
      random_state(t).set_keys(random_key(state[0], t.place), static_cast<std::uint64_t>(state[1]));
    }
    if (!plan_.uniform_steps.empty()) run_steps(plan_.uniform_steps, static_cast<std::size_t>(plan_.block_rows), 1);
    if (plan_.column_steps.empty()) return;
    const std::int64_t rows = plan_.column_rows != 0 ? plan_.column_rows : plan_.block_rows;
    for (std::int64_t t = 0; t < plan_.tiles_per_row; ++t) {
      const std::int64_t n = move_to(t);
      run_steps(plan_.column_steps, static_cast<std::size_t>(rows), static_cast<std::size_t>(n));
    }
  }

  RandomState& random_state(const LoopTransfer& t) const { return *reinterpret_cast<RandomState*>(slot(t.memory)); }
  void place_random() const {
    for (int k : plan_.random_transfers)
      random_state(plan_.transfers[static_cast<std::size_t>(k)])
          .set_first(static_cast<std::uint64_t>(row_ * plan_.program.cols + column_));
  }

  // Points the moving slots at tile t of the row; returns the tile's columns.
  std::int64_t move_to(std::int64_t t) {
    column_ = t * plan_.tile;
    for (int s : plan_.moving_slots) slots_[s] = bases_[s] + static_cast<std::size_t>(column_) * width_of(s);
    place_random();
    return std::min(plan_.tile, plan_.program.cols - column_);
  }

  void begin_block(std::int64_t row, std::int64_t rows) {
    row_ = row;
    rows_ = static_cast<std::size_t>(rows);
    place_random();
    begin_stream(plan_.tiles_per_row == 1 ? rows_ * static_cast<std::size_t>(plan_.program.cols) : 0);
    for (int s : plan_.row_slots) {
      const int k = plan_.slots[static_cast<std::size_t>(s)].operand;
      const LoopAccess& a = plan_.program.operands[static_cast<std::size_t>(k)].access;
      const std::int64_t offset = a.rank == 0 ? 0 : a.rank == 1 ? row * a.stride[0] : a.offset(row, 0);
      bases_[s] = slots_[s] = place(k) + offset * static_cast<std::int64_t>(width_of(s));
    }
  }

  void run_steps(const std::vector<LoopStep>& steps, std::size_t rows, std::size_t n) {
    for (const LoopStep& s : steps) run_step(s, rows, n);
  }
  void run_step(const LoopStep& s, std::size_t rows, std::size_t n) {
    if (s.only_first && thread_ != 0) return;
    if (s.code != nullptr) return (uncached_ ? s.uncached_code : s.code)(slots_, rows, n);
    if (s.fn == nullptr) return transfer(s, s.span == LoopSpan::one ? 1 : rows, s.span == LoopSpan::flat ? n : 1);
    if (s.span == LoopSpan::folded) return run_folded(s, rows * n);
    const std::size_t span_rows[4] = {1, 1, 1, rows}, span_n[4] = {1, rows, rows * n, n};
    const auto span = static_cast<std::size_t>(s.span);
    s.fn(slot(s.dst), slot(s.a), slot(s.b), slot(s.c), span_rows[span], span_n[span]);
  }

  void run_folded(const LoopStep& s, std::size_t elements) {
    constexpr auto kColumns = static_cast<std::size_t>(kFoldedColumns);
    const std::size_t whole = elements / kColumns, done = whole * kColumns * plan_.element_bytes();
    if (whole > 0) s.fn(slot(s.dst), slot(s.a), slot(s.b), nullptr, whole, kColumns);
    if (elements % kColumns != 0)
      s.fn(slot(s.dst), slot(s.a) + done, slot(s.b) + done, nullptr, 1, elements % kColumns);
  }

  // The steps of a tile share the fetching of the next one, a few cache lines each: more at once would wait.
  void begin_stream(std::size_t elements) {
    stream_ = 0, stream_at_ = 0;
    stream_bytes_ = elements * plan_.element_bytes();
  }
  void run_tile_steps(const std::vector<LoopStep>& steps, std::size_t rows, std::size_t n) {
    if (plan_.streams.empty()) return run_steps(steps, rows, n);
    for (const LoopStep& s : steps) {
      fetch_ahead();
      run_step(s, rows, n);
    }
  }
  void fetch_ahead() {
    for (std::size_t left = plan_.stream_quota * 64; left > 0 && stream_ < plan_.streams.size();) {
      const std::size_t bytes = std::min(left, stream_bytes_ - stream_at_);
      const char* at = slot(plan_.streams[stream_]) + stream_bytes_ + stream_at_;
      for (const char* end = at + bytes; at < end; at += 64) __builtin_prefetch(at);
      left -= bytes;
      if ((stream_at_ += bytes) == stream_bytes_) stream_at_ = 0, ++stream_;
    }
  }

  void run_blocks(std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) run_block(b);
  }

  void run_block(std::int64_t block) {
    const std::int64_t row = block * plan_.block_rows;
    begin_block(row, std::min(plan_.block_rows, plan_.program.rows - row));
    for (const LoopPhase& phase : plan_.phases) {
      if (!phase.row_steps.empty()) run_steps(phase.row_steps, rows_, 1);
      if (plan_.tiles_per_row == 1) {
        run_tile_steps(phase.tile_steps, rows_, static_cast<std::size_t>(plan_.program.cols));
        continue;
      }
      if (phase.tile_steps.empty()) continue;
      for (int r : phase.reductions) joined_[r].begin(plan_.reductions[static_cast<std::size_t>(r)].op);
      run_tiles(phase, 0, plan_.tiles_per_row);
      for (int r : phase.reductions)
        write(slot(plan_.reductions[static_cast<std::size_t>(r)].result), wide_, joined_[r].result());
    }
  }

  void run_tiles(const LoopPhase& phase, std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t n = move_to(t);
      begin_stream(static_cast<std::size_t>(n));
      run_tile_steps(phase.tile_steps, rows_, static_cast<std::size_t>(n));
      for (int r : phase.reductions) {
        const LoopReduction& reduction = plan_.reductions[static_cast<std::size_t>(r)];
        joined_[r].join(reduction.op, read(slot(reduction.partial), wide_));
      }
    }
  }

  // ---- column accumulators ----
  void run_chunk(std::int64_t chunk) {
    for (const LoopAccumulator& acc : plan_.accumulators) {
      start(acc);
      if (double* partial = partial_of(acc, chunk)) std::fill_n(partial, plan_.program.cols, start_of(acc.op));
    }
    const std::int64_t end = std::min(plan_.blocks, (chunk + 1) * plan_.chunk_blocks);
    for (std::int64_t b = chunk * plan_.chunk_blocks; b < end;) {
      const std::int64_t stop = std::min(end, b + plan_.flush_blocks());
      run_blocks(b, stop);
      b = stop;
      if (plan_.direct_accumulators()) break;
      flush(chunk, b < end);
    }
    if (!plan_.direct_accumulators()) return;
    for (const LoopAccumulator& acc : plan_.accumulators) {
      fold(acc);
      store_columns(acc, bases_[acc.slot], 0, plan_.program.cols);
    }
  }

  void start(const LoopAccumulator& acc) {
    const auto n = static_cast<std::size_t>(plan_.accumulator_rows * plan_.program.cols);
    if (wide_)
      std::fill_n(reinterpret_cast<double*>(bases_[acc.slot]), n, start_of(acc.op));
    else
      std::fill_n(reinterpret_cast<float*>(bases_[acc.slot]), n, static_cast<float>(start_of(acc.op)));
  }

  // Folds the accumulator's rows in halves onto the first.
  void fold(const LoopAccumulator& acc) {
    const TileFn join = tile_table(plan_.program.compute).at(accumulator_op(acc.op), 0);
    const std::size_t row_bytes = static_cast<std::size_t>(plan_.program.cols) * plan_.element_bytes();
    for (std::int64_t rows = plan_.accumulator_rows; rows > 1;) {
      const std::int64_t half = (rows + 1) / 2;
      join(bases_[acc.slot], bases_[acc.slot] + static_cast<std::size_t>(half) * row_bytes, nullptr, nullptr, 1,
           static_cast<std::size_t>((rows - half) * plan_.program.cols));
      rows = half;
    }
  }

  double* partial_of(const LoopAccumulator& acc, std::int64_t chunk) const {
    if (plan_.direct_accumulators()) return nullptr;
    const std::int64_t number = &acc - plan_.accumulators.data();
    return shared_ + (number * plan_.chunks + chunk) * plan_.program.cols;
  }

  void flush(std::int64_t chunk, bool more) {
    for (const LoopAccumulator& acc : plan_.accumulators) {
      fold(acc);
      double* partial = partial_of(acc, chunk);
      if (wide_)
        join_columns(acc.op, partial, reinterpret_cast<const double*>(bases_[acc.slot]), plan_.program.cols);
      else
        join_columns(acc.op, partial, reinterpret_cast<const float*>(bases_[acc.slot]), plan_.program.cols);
      if (more) start(acc);
    }
  }
  template <class T> static void join_columns(LoopOp op, double* partial, const T* values, std::int64_t cols) {
    if (op == LoopOp::column_sum) {
      for (std::int64_t c = 0; c < cols; ++c) partial[c] += static_cast<double>(values[c]);
      return;
    }
    for (std::int64_t c = 0; c < cols; ++c) {
      Joined j{partial[c], 0};
      j.join(op, static_cast<double>(values[c]));
      partial[c] = j.value;
    }
  }

  // Joins the chunks' partial results pairwise: halves onto halves, the columns innermost.
  void merge_range(std::int64_t begin, std::int64_t end) {
    for (const LoopAccumulator& acc : plan_.accumulators) {
      for (std::int64_t chunks = plan_.chunks; chunks > 1; chunks = (chunks + 1) / 2)
        for (std::int64_t i = (chunks + 1) / 2; i < chunks; ++i)
          join_columns(acc.op, partial_of(acc, i - (chunks + 1) / 2) + begin, partial_of(acc, i) + begin, end - begin);
      const double* joined = partial_of(acc, 0);
      char* values = bases_[acc.slot];  // free by now: all blocks are done
      for (std::int64_t c = begin; c < end; ++c)
        write(values + static_cast<std::size_t>(c) * plan_.element_bytes(), wide_, joined[c]);
      store_columns(acc, values, begin, end);
    }
  }

  void store_columns(const LoopAccumulator& acc, const char* values, std::int64_t begin, std::int64_t end) const {
    const LoopOperand& o = plan_.program.operands[static_cast<std::size_t>(acc.operand)];
    char* out = static_cast<char*>(operands_[acc.operand]);
    const std::int64_t bytes = static_cast<std::int64_t>(size_of(o.dtype));
    const auto from = [&](std::int64_t c) { return values + static_cast<std::size_t>(c) * plan_.element_bytes(); };
    if (o.access.col_stride == 1 || end - begin <= 1) {
      acc.store(out + begin * o.access.col_stride * bytes, from(begin), static_cast<std::size_t>(end - begin));
      return;
    }
    for (std::int64_t c = begin; c < end; ++c) acc.store(out + c * o.access.col_stride * bytes, from(c), 1);
  }

  // ---- few long rows ----
  void column_chunk(const LoopPhase& phase, std::int64_t chunk) {
    for (int r : phase.reductions) joined_[r].begin(plan_.reductions[static_cast<std::size_t>(r)].op);
    const std::int64_t begin = chunk * plan_.chunk_tiles;
    if (!phase.tile_steps.empty()) run_tiles(phase, begin, std::min(plan_.tiles_per_row, begin + plan_.chunk_tiles));
    for (int r : phase.reductions) shared_[r * plan_.chunks + chunk] = joined_[r].result();
  }
  void merge_row(const LoopPhase& phase) {
    for (int r : phase.reductions) {
      const LoopReduction& reduction = plan_.reductions[static_cast<std::size_t>(r)];
      Joined j;
      j.begin(reduction.op);
      for (std::int64_t chunk = 0; chunk < plan_.chunks; ++chunk)
        j.join(reduction.op, shared_[r * plan_.chunks + chunk]);
      write(slot(reduction.result), wide_, j.result());
    }
  }

  // ---- transfers ----
  void transfer(const LoopStep& s, std::size_t rows, std::size_t n) {
    const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    switch (t.kind) {
      case LoopTransfer::Kind::load: return load(t, slot(s.dst), rows, n);
      case LoopTransfer::Kind::store: return store(t, slot(s.a), rows, n);
      case LoopTransfer::Kind::column_index:
        for (std::size_t r = 0; r < rows; ++r)
          for (std::size_t i = 0; i < n; ++i)
            put(slot(s.dst), r * n + i, static_cast<double>(column_ + static_cast<std::int64_t>(i)));
        return;
      case LoopTransfer::Kind::row_index:
        for (std::size_t r = 0; r < rows; ++r)
          put(slot(s.dst), r, static_cast<double>(row_ + static_cast<std::int64_t>(r)));
        return;
      case LoopTransfer::Kind::random: return random(t, slot(s.dst), rows * n);
    }
  }
  void put(char* p, std::size_t i, double v) const { write(p + i * plan_.element_bytes(), wide_, v); }

  void random(const LoopTransfer& t, char* dst, std::size_t n) const {
    const auto* key = reinterpret_cast<const std::int64_t*>(place(t.operand));
    const auto first = static_cast<std::uint64_t>(row_ * plan_.program.cols + column_);
    random_tile(plan_.program.compute)(dst, n, first, random_key(key[0], t.place), static_cast<std::uint64_t>(key[1]),
                                       static_cast<int>(t.width));
  }

  // Calls f(memory of row r, tile of row r, elements) for the runs of a transfer.
  template <class F> void each_run(const LoopTransfer& t, char* tile, std::size_t rows, std::size_t n, F f) const {
    const LoopOperand& o = plan_.program.operands[static_cast<std::size_t>(t.operand)];
    const std::int64_t bytes = static_cast<std::int64_t>(size_of(o.dtype)), step = o.access.col_stride;
    for (std::size_t r = 0; r < rows; ++r) {
      char* at = place(t.operand) + o.access.offset(row_ + static_cast<std::int64_t>(r), column_) * bytes;
      char* row = tile + r * n * plan_.element_bytes();
      if (t.dense) return f(at, row, rows * n);
      if (step == 1 || n == 1) {
        f(at, row, n);
        continue;
      }
      for (std::size_t i = 0; i < n; ++i)
        f(at + static_cast<std::int64_t>(i) * step * bytes, row + i * plan_.element_bytes(), std::size_t{1});
    }
  }
  void load(const LoopTransfer& t, char* dst, std::size_t rows, std::size_t n) const {
    each_run(t, dst, t.replicated ? std::min<std::size_t>(rows, 1) : rows, n,
             [&](const char* at, char* tile, std::size_t count) { t.convert(tile, at, count); });
    if (!t.replicated) return;
    const std::size_t row_bytes = n * plan_.element_bytes();
    for (std::size_t done = 1; done < rows; done *= 2)
      std::memcpy(dst + done * row_bytes, dst, std::min(done, rows - done) * row_bytes);
  }
  void store(const LoopTransfer& t, char* src, std::size_t rows, std::size_t n) const {
    each_run(t, src, t.replicated ? std::min<std::size_t>(rows, 1) : rows, n,
             [&](char* at, const char* tile, std::size_t count) { t.convert(at, tile, count); });
  }

  const Plan& plan_;
  void* const* operands_;
  double* shared_;
  int thread_, threads_;
  bool wide_;
  bool uncached_ = false;
  char** slots_ = nullptr;  // where each slot is now
  char** bases_ = nullptr;  // where moving slots start in this row
  Joined* joined_ = nullptr;
  char* scratch_ = nullptr;
  std::int64_t row_ = 0, column_ = 0;
  std::size_t rows_ = 1;
  std::size_t stream_ = 0, stream_at_ = 0, stream_bytes_ = 0;  // the next cache line to fetch; bytes of a tile
};

const char* span_name(LoopSpan s) {
  constexpr const char* kSpans[] = {"one", "rows", "flat", "rowwise", "folded"};
  return kSpans[static_cast<std::size_t>(s)];
}

const char* op_name(TileOp op) {
  constexpr const char* kMacros[] = {"copy",     "ramp",       "fma",        "fms",        "nfma",      "axpby",
                                     "axpbyy",   "exp_sub",    "sub_mul",    "add_relu",   "relu_mask", "row_dot",
                                     "row_pick", "column_sum", "column_max", "column_min", "column_dot"};
  const auto first = static_cast<std::size_t>(TileOp::copy), i = static_cast<std::size_t>(op);
  return i >= first ? kMacros[i - first] : name_of(static_cast<LoopOp>(op));
}

void explain_steps(std::string& out, const char* title, const Plan& plan, const std::vector<LoopStep>& steps) {
  if (steps.empty()) return;
  out += fmt::format("  {}\n", title);
  for (const LoopStep& s : steps)
    if (s.run >= 0)
      for (const LoopStage& stage : plan.runs[static_cast<std::size_t>(s.run)].stages) {
        explain_steps(out, "  machine code, for each row", plan, stage.row_steps);
        explain_steps(out, "  machine code", plan, stage.tile_steps);
      }
    else
      out += fmt::format("    s{} = {} s{} s{} s{} ({})\n", s.dst, s.fn ? op_name(s.op) : "transfer", s.a, s.b, s.c,
                         span_name(s.span));
}

}  // namespace

void RandomState::set_keys(std::uint64_t key, std::uint64_t step) noexcept {
  counter[0] = step & 0xffffffffu, counter[1] = step >> 32;
  std::uint32_t k[2] = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
  for (auto& round : keys) {
    round[0] = k[0], round[1] = k[1];
    k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u;
  }
}
void RandomState::set_first(std::uint64_t element) noexcept {
  for (std::size_t i = 0; i < std::size(blocks); ++i) blocks[i] = element / 4 + kBlockOrder[i];
}

std::size_t CompiledLoop::Plan::thread_bytes() const noexcept {
  return whole_lines(2 * slots.size() * sizeof(char*) + reductions.size() * sizeof(Joined)) + scratch_bytes + 64;
}

CompiledLoop::~CompiledLoop() = default;
CompiledLoop::CompiledLoop(CompiledLoop&&) noexcept = default;
CompiledLoop& CompiledLoop::operator=(CompiledLoop&&) noexcept = default;

std::size_t CompiledLoop::workspace_bytes(int threads) const noexcept {
  return whole_lines(plan_->shared_bytes) + static_cast<std::size_t>(threads) * plan_->thread_bytes();
}

int CompiledLoop::useful_threads(int max_threads) const noexcept {
  constexpr double kWorthOneThread = 2500;  // ns: a fork and join costs about 1300 with cold workers
  return std::clamp(static_cast<int>(std::min(plan_->ns / kWorthOneThread, 1e6)), 1, std::max(max_threads, 1));
}

void CompiledLoop::run(void* const* operands, int threads, void* workspace) const {
  const Plan& plan = *plan_;
  char* shared = static_cast<char*>(workspace);
  char* memory = shared + whole_lines(plan.shared_bytes);
  const std::int64_t units = plan.by_columns || !plan.accumulators.empty() ? plan.chunks : plan.blocks;
  const int team = static_cast<int>(std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(units, 1)));
  if (team == 1) {
    Worker worker(plan, operands, memory, shared, 0, 1);
    worker.run();
    worker.merge_columns();
    return;
  }
  const bool flush = FlushDenormals::active();
#pragma omp parallel num_threads(team)
  {
    // The system may grant fewer threads than asked for: the chunks are shared by those who came.
    const int thread = omp_get_thread_num(), present = omp_get_num_threads();
    const FlushDenormals denormals(flush);
    Worker worker(plan, operands, memory + static_cast<std::size_t>(thread) * plan.thread_bytes(), shared, thread,
                  present);
    worker.run();
    if (!plan.by_columns) {
#pragma omp barrier
      worker.merge_columns();
    }
  }
}

std::string CompiledLoop::explain() const {
  const Plan& p = *plan_;
  std::string out =
      fmt::format("{}  {}, blocks of {} rows, tiles of {} columns, {} chunks, {} bytes a thread{}\n", p.program.str(),
                  p.by_columns ? "by columns" : "by rows", p.block_rows, p.tile, p.chunks, p.thread_bytes(),
                  p.uncached_outputs.empty() ? "" : ", stores past the caches");
  explain_steps(out, "once", p, p.uniform_steps);
  explain_steps(out, "once, by column", p, p.column_steps);
  for (const LoopPhase& phase : p.phases) {
    explain_steps(out, "for each row", p, phase.row_steps);
    explain_steps(out, "for each tile", p, phase.tile_steps);
  }
  return out;
}

}  // namespace bp::cpu
