// Folders of images: listing, decoding and resizing on whichever thread asks.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "bp/images.h"
#include "data/resize.h"

namespace bp::data {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void cannot_read(const std::string& folder, const std::error_code& error) {
  fail(ErrorKind::io, "cannot read the folder {}: {}", folder, error.message());
}

bool is_hidden(const fs::path& p) { return p.filename().string().starts_with('.'); }

bool is_image_name(const fs::path& p) {
  std::string end = p.extension().string();
  for (char& c : end) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return !is_hidden(p) && (end == ".png" || end == ".jpg" || end == ".jpeg");
}

std::vector<std::string> subfolders(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator at(folder, error);
  for (const fs::directory_iterator end; !error && at != end; at.increment(error))
    if (at->is_directory(error) && !is_hidden(at->path())) names.push_back(at->path().filename().string());
  if (error) cannot_read(folder, error);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> images_below(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> paths;
  fs::recursive_directory_iterator at(folder, fs::directory_options::follow_directory_symlink, error);
  for (const fs::recursive_directory_iterator end; !error && at != end; at.increment(error)) {
    constexpr int kDeepest = 64;  // a link may lead back to where it stands
    if (is_hidden(at->path()) || at.depth() > kDeepest) at.disable_recursion_pending();
    if (is_image_name(at->path()) && at->is_regular_file(error)) paths.push_back(at->path().string());
  }
  if (error) cannot_read(folder, error);
  std::sort(paths.begin(), paths.end());
  return paths;
}

void check_folder_options(const ImageFolderOptions& o) {
  constexpr std::int64_t kMost = 1 << 16;
  if (o.height < 1 || o.width < 1 || o.height > kMost || o.width > kMost)
    fail(ErrorKind::value, "[images] a size of {} x {}: expected 1 to {}", o.height, o.width, kMost);
  if (o.read.channels != 1 && o.read.channels != 3)
    fail(ErrorKind::value, "[images] channels is {}: expected 1 (grey) or 3 (r g b)", o.read.channels);
}

// Decodes one image into `to`, [height, width, channels]; `wide` is memory to use again.
void load(const std::string& path, const ImageFolderOptions& o, std::uint8_t* to, std::vector<float>& wide) {
  const Array image = io::read_image(path, o.read);
  const std::int64_t n = o.height * o.width * o.read.channels;
  const auto* from = image.data<std::uint8_t>();
  if (image.shape[0] == o.height && image.shape[1] == o.width) {
    std::copy(from, from + n, to);
    return;
  }
  wide.resize(static_cast<std::size_t>(n));
  resize({from, image.shape[0], image.shape[1], image.shape[2]}, wide.data(), o.height, o.width);
  for (std::int64_t i = 0; i < n; ++i)
    to[i] = static_cast<std::uint8_t>(std::clamp(wide[static_cast<std::size_t>(i)] + 0.5f, 0.0f, 255.0f));
}

template <class Path> Array load_each(std::int64_t n, const ImageFolderOptions& o, Path&& path) {
  Array out = Array::empty(DType::u8, {n, o.height, o.width, o.read.channels});
  std::vector<float> wide;
  for (std::int64_t i = 0; i < n; ++i)
    load(path(i), o, out.mutable_data<std::uint8_t>() + i * o.height * o.width * o.read.channels, wide);
  return out;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i == 8) return out + ", ...";
    out += (i == 0 ? "" : ", ") + names[i];
  }
  return out;
}

}  // namespace

ImageFolder::ImageFolder(const std::string& folder, ImageFolderOptions options)
    : folder_(folder), options_(std::move(options)) {
  check_folder_options(options_);
  const std::vector<std::string> found = subfolders(folder);
  const bool given = !options_.classes.empty();
  if (!given) {
    if (found.size() < 2)
      fail(ErrorKind::format, "{}: expected a subfolder of images for each of two or more classes, found {}", folder,
           found.empty() ? "none" : "only " + found[0]);
    options_.classes = found;
  }
  auto entries = std::make_shared<std::vector<Entry>>();
  for (const std::string& name : found) {
    const auto at = std::find(options_.classes.begin(), options_.classes.end(), name);
    if (at == options_.classes.end())
      fail(ErrorKind::format, "{}: the subfolder {} is none of the classes: {}", folder, name,
           joined(options_.classes));
    const std::string path = (fs::path(folder) / name).string();
    std::vector<std::string> images = images_below(path);
    if (images.empty()) fail(ErrorKind::format, "{}: holds no image: expected .png, .jpg or .jpeg files", path);
    for (std::string& p : images) entries->push_back({std::move(p), at - options_.classes.begin()});
  }
  if (entries->empty())
    fail(ErrorKind::format, "{}: expected a subfolder of images for each of the classes {}, found none", folder,
         joined(options_.classes));
  rows_.resize(entries->size());
  std::iota(rows_.begin(), rows_.end(), 0);
  entries_ = std::move(entries);
}

const ImageFolder::Entry& ImageFolder::entry(std::int64_t row) const {
  if (row < 0 || row >= size()) fail(ErrorKind::value, "[images] row {} of a folder of {} images", row, size());
  return (*entries_)[static_cast<std::size_t>(rows_[static_cast<std::size_t>(row)])];
}

const std::string& ImageFolder::path(std::int64_t row) const { return entry(row).path; }

Batch ImageFolder::fetch(std::span<const std::int64_t> rows, Key) const {
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto at = [&](std::int64_t i) -> const Entry& { return entry(rows[static_cast<std::size_t>(i)]); };
  Batch batch{load_each(n, options_, [&](std::int64_t i) -> const std::string& { return at(i).path; }),
              Array::empty(DType::i64, {n})};
  for (std::int64_t i = 0; i < n; ++i) batch.y.mutable_data<std::int64_t>()[i] = at(i).label;
  return batch;
}

void ImageFolder::check_targets(std::int64_t classes, const char* what) const {
  for (std::int64_t i = 0; i < size(); ++i)
    if (entry(i).label >= classes)
      fail(ErrorKind::value, "[images] {}: {} is of class {}: expected 0 to {}", what, entry(i).path, entry(i).label,
           classes - 1);
}

ImageFolder ImageFolder::subset(std::vector<std::int64_t> rows) const {
  ImageFolder part = *this;
  for (std::int64_t& r : rows) r = rows_[static_cast<std::size_t>(r)];
  part.rows_ = std::move(rows);
  return part;
}

ImageFolder ImageFolder::take(std::int64_t n, Key key) const {
  if (n < 1) fail(ErrorKind::value, "[images] {} images were asked for: expected 1 or more", n);
  std::vector<std::int64_t> order = permutation(size(), key);
  order.resize(static_cast<std::size_t>(std::min(n, size())));
  std::sort(order.begin(), order.end());
  return subset(std::move(order));
}

std::pair<ImageFolder, ImageFolder> ImageFolder::split(double fraction, Key key) const {
  if (!(fraction > 0 && fraction < 1))
    fail(ErrorKind::value, "[images] split of {}: expected a share between 0 and 1", fraction);
  if (size() < 2) fail(ErrorKind::value, "[images] one image cannot be split");
  std::vector<std::int64_t> order = permutation(size(), key.fold("split"));
  const auto held_out = std::clamp<std::int64_t>(std::llround(fraction * static_cast<double>(size())), 1, size() - 1);
  const auto middle = order.begin() + held_out;
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  return {subset({middle, order.end()}), subset({order.begin(), middle})};
}

Moments ImageFolder::moments() const {
  const auto channels = static_cast<std::size_t>(options_.read.channels);
  std::vector<double> sum(channels, 0), squares(channels, 0);  // of bytes, less than 2^53 in all
  double pixels = 0;
  for (std::int64_t i = 0; i < size(); ++i) {
    const Array x = fetch({&i, 1}).x;
    const auto values = x.values<std::uint8_t>();
    for (std::size_t k = 0; k < values.size(); ++k) {
      sum[k % channels] += values[k];
      squares[k % channels] += static_cast<double>(values[k]) * values[k];
    }
    pixels += static_cast<double>(values.size() / channels);
  }
  Moments m;
  for (std::size_t c = 0; c < channels; ++c) {
    const double mean = sum[c] / pixels, variance = squares[c] / pixels - mean * mean;
    m.mean.push_back(static_cast<float>(mean / 255));
    m.stddev.push_back(variance > 0 ? static_cast<float>(std::sqrt(variance) / 255) : 1.0f);
  }
  return m;
}

std::vector<std::string> image_paths(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<std::string> paths = images_below(path);
  if (paths.empty()) fail(ErrorKind::format, "{}: holds no image: expected .png, .jpg or .jpeg files", path);
  return paths;
}

Array load_images(const std::vector<std::string>& paths, const ImageFolderOptions& options) {
  check_folder_options(options);
  return load_each(static_cast<std::int64_t>(paths.size()), options,
                   [&](std::int64_t i) -> const std::string& { return paths[static_cast<std::size_t>(i)]; });
}

}  // namespace bp::data
