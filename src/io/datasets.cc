// Files to datasets: MNIST's pair of IDX files, and CSV tables with a target column.
#include "bp/datasets.h"

#include <algorithm>

#include "base/error.h"

namespace bp::data {

ArrayDataset load_idx_pair(const std::string& images, const std::string& labels, std::optional<std::int64_t> classes) {
  Array x = io::read_idx(images);
  const Array ids = io::read_idx(labels);
  if (x.dtype != DType::u8 || x.shape.rank() < 3 || x.shape.rank() > 4)
    fail(ErrorKind::format, "{}: holds {} {}, expected images: u8 [N, H, W] or [N, H, W, C]", images, name_of(x.dtype),
         x.shape);
  if (!is_integer(ids.dtype) || ids.shape.rank() != 1)
    fail(ErrorKind::format, "{}: holds {} {}, expected labels: integers [N]", labels, name_of(ids.dtype), ids.shape);
  if (ids.rows() != x.rows())
    fail(ErrorKind::format, "{} holds {} images, {} holds {} labels: they do not belong together", images, x.rows(),
         labels, ids.rows());
  if (x.numel() == 0) fail(ErrorKind::format, "{}: holds no images (shape {})", images, x.shape);
  if (x.shape.rank() == 3) {
    Shape with_channel = x.shape;
    with_channel.push_back(1);
    x = x.reshaped(with_channel);
  }
  if (classes) check_labels(ids, *classes, labels.c_str());
  return ArrayDataset(std::move(x), convert(ids, DType::i64));
}

ArrayDataset load_csv(const std::string& path, const std::string& target, const io::CsvOptions& options) {
  io::CsvOptions wanted = options;
  if (!target.empty() && !wanted.columns.empty() &&
      std::find(wanted.columns.begin(), wanted.columns.end(), target) == wanted.columns.end())
    wanted.columns.push_back(target);
  const io::Table table = io::read_csv(path, wanted);
  std::vector<std::string> inputs;
  for (const io::Column& c : table.columns)
    if (c.name != target) inputs.push_back(c.name);
  if (inputs.empty()) fail(ErrorKind::format, "{}: no column is left as an input beside \"{}\"", path, target);
  Array x = table.matrix(inputs, options.dtype);
  if (target.empty()) return ArrayDataset(std::move(x));
  const io::Column& y = table.column(target);
  if (y.values.dtype == DType::i64) return ArrayDataset(std::move(x), y.values, y.categories);
  check_finite(y.values, target.c_str());
  return ArrayDataset(std::move(x), y.values.reshaped({y.values.rows(), 1}));
}

}  // namespace bp::data
