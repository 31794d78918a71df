// Sources that read forward: compressed arrays and tables, and tables of several files.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"
#include "bp/stream.h"
#include "data/epochs.h"
#include "data/shards.h"
#include "data/table_batch.h"
#include "io/csv_scan.h"
#include "io/forward.h"

namespace bp::data {

namespace {

// Inputs and targets of one shard side by side.
class ArrayRows final : public RowReader {
 public:
  ArrayRows(const std::string& inputs, const std::string& targets) : inputs_(inputs) {
    if (!targets.empty()) targets_.emplace(targets);
  }
  bool next(RawRow& row) override {
    row.bytes.clear();
    return inputs_.next(row.bytes) && (!targets_ || targets_->next(row.bytes));
  }

 private:
  io::ForwardArray inputs_;
  std::optional<io::ForwardArray> targets_;
};

// What all shards must have in common.
void check_alike(const io::Stored& a, const io::Stored& b, const std::string& path) {
  Shape x = a.shape, y = b.shape;
  x[0] = y[0] = 0;
  if (x != y || a.type != b.type)
    fail(ErrorKind::format, "{}: holds {} {}, the shard before {} {}: expected the same", path, name_of(b.dtype),
         b.shape, name_of(a.dtype), a.shape);
}

Array unpacked(std::span<const RawRow> rows, std::size_t offset, std::size_t bytes, const io::Stored& stored) {
  const Buffer raw = Buffer::allocate(rows.size() * bytes);
  auto* to = raw.as_mutable<std::byte>();
  for (const RawRow& row : rows) {
    if (bytes != 0) std::memcpy(to, row.bytes.data() + offset, bytes);
    to += bytes;
  }
  Shape shape = stored.shape;
  shape[0] = static_cast<std::int64_t>(rows.size());
  return stored.decode(raw.as<std::byte>(), shape);
}

io::csv::RecordReader records_of(io::ForwardFile& file) {
  constexpr std::size_t kWindow = std::size_t{1} << 18;
  return {[&file](char* to, std::size_t n) { return file.read_some(to, n); }, file.path(), kWindow};
}

class TableRows final : public RowReader {
 public:
  TableRows(const std::string& path, const std::vector<std::string>& header, const io::CsvOptions& options)
      : file_(path),
        records_(records_of(file_)),
        tokens_({}, file_.path(), options.delimiter),
        table_(header, file_.path(), options),
        drops_(options.missing == io::Missing::drop_row) {
    io::csv::Record first;
    records_.next(first);  // the header, which was compared when the rows were counted
  }
  bool next(RawRow& row) override {
    io::csv::Record record;
    do {
      if (!records_.next(record)) return false;
    } while (drops_ && !accepts(record));
    row.bytes.assign(record.text);
    row.line = record.line;
    return true;
  }

 private:
  bool accepts(const io::csv::Record& record) {
    tokens_.restart(record.text, record.line);
    tokens_.next(fields_);
    return table_.accepts(fields_, record.line);
  }
  io::ForwardFile file_;
  io::csv::RecordReader records_;
  io::csv::Tokenizer tokens_;
  io::csv::TableBuilder table_;
  std::vector<io::csv::Field> fields_;
  bool drops_;
};

}  // namespace

// ---- Arrays -------------------------------------------------------------------------------------------------------

struct ForwardArrays::Impl {
  Impl(const std::string& inputs, const std::string& targets, const ForwardOptions& o);
  std::vector<std::string> inputs, targets;
  io::Stored x, y;
  std::size_t x_bytes = 0, y_bytes = 0;
  std::optional<Epochs> epochs;
};

ForwardArrays::Impl::Impl(const std::string& in, const std::string& out, const ForwardOptions& o)
    : inputs(shard_paths(in)) {
  if (!out.empty()) targets = shard_paths(out);
  if (!out.empty() && targets.size() != inputs.size())
    fail(ErrorKind::format, "{} are {} files, {} are {}: they do not belong together", in, inputs.size(), out,
         targets.size());
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const io::ForwardArray a(inputs[i]);
    if (i > 0) check_alike(x, a.stored(), inputs[i]);
    x = a.stored();
    x_bytes = a.row_bytes();
    rows.push_back(a.rows());
    if (targets.empty()) continue;
    const io::ForwardArray b(targets[i]);
    if (i > 0) check_alike(y, b.stored(), targets[i]);
    y = b.stored();
    y_bytes = b.row_bytes();
    if (a.rows() != b.rows())
      fail(ErrorKind::format, "{} holds {} rows, {} holds {}: they do not belong together", inputs[i], a.rows(),
           targets[i], b.rows());
  }
  epochs.emplace(std::move(rows), o.buffer, [this](std::size_t shard) {
    return std::make_unique<ArrayRows>(inputs[shard], targets.empty() ? std::string() : targets[shard]);
  });
  if (epochs->size() == 0) fail(ErrorKind::format, "{}: holds no rows", in);
}

ForwardArrays::ForwardArrays(const std::string& inputs, const std::string& targets, const ForwardOptions& options)
    : name_(inputs), impl_(std::make_shared<const Impl>(inputs, targets, options)) {}
std::int64_t ForwardArrays::size() const { return impl_->epochs->size(); }

Batch ForwardArrays::fetch(std::span<const std::int64_t> rows, Key key) const {
  const std::vector<RawRow> raw = impl_->epochs->take(rows, key);
  Batch batch{unpacked(raw, 0, impl_->x_bytes, impl_->x), {}};
  if (!impl_->targets.empty()) batch.y = unpacked(raw, impl_->x_bytes, impl_->y_bytes, impl_->y);
  return batch;
}

// ---- Tables -------------------------------------------------------------------------------------------------------

struct ForwardCsv::Impl {
  Impl(const std::string& path, const io::CsvOptions& o, const ForwardOptions& forward);
  io::Table table_of(std::span<const RawRow> rows) const;
  std::vector<std::string> files, header;
  io::CsvOptions options;
  std::optional<Epochs> epochs;
};

ForwardCsv::Impl::Impl(const std::string& path, const io::CsvOptions& o, const ForwardOptions& forward)
    : files(shard_paths(path)), options(o) {
  io::csv::check_options(options);
  io::csv::Scan scan(options);
  std::vector<std::int64_t> rows;
  for (const std::string& f : files) {
    io::ForwardFile file(f);
    io::csv::RecordReader records = records_of(file);
    rows.push_back(0);
    scan.pass(records, f, [&](const io::csv::Record&) { ++rows.back(); });
  }
  header = scan.header();
  options = scan.finish();
  epochs.emplace(std::move(rows), forward.buffer,
                 [this](std::size_t shard) { return std::make_unique<TableRows>(files[shard], header, options); });
  if (epochs->size() == 0) io::csv::fail_without_rows(path, scan.dropped());
}

io::Table ForwardCsv::Impl::table_of(std::span<const RawRow> rows) const {
  io::csv::Tokenizer tokens({}, {}, options.delimiter);
  io::csv::TableBuilder table(header, {}, options);
  std::vector<io::csv::Field> fields;
  for (const RawRow& row : rows) {
    const std::string& name = files[row.shard];
    tokens.restart(row.bytes, row.line, name);
    tokens.next(fields);
    table.set_name(name);
    table.add(fields, row.line);
  }
  return table.finish();
}

ForwardCsv::ForwardCsv(const std::string& path, std::string target, const io::CsvOptions& options,
                       const ForwardOptions& forward, bool one_hot)
    : name_(path),
      impl_(std::make_shared<const Impl>(path, options, forward)),
      target_(std::move(target)),
      inputs_(input_columns(impl_->table_of({}), target_, path)),
      one_hot_(one_hot) {}

std::int64_t ForwardCsv::size() const { return impl_->epochs->size(); }
const io::CsvOptions& ForwardCsv::options() const noexcept { return impl_->options; }
io::Table ForwardCsv::columns() const { return impl_->table_of({}); }

Batch ForwardCsv::fetch(std::span<const std::int64_t> rows, Key key) const {
  return batch_of(impl_->table_of(impl_->epochs->take(rows, key)), inputs_, target_, one_hot_, impl_->options.dtype);
}

}  // namespace bp::data
