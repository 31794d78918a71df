// [data] format = "images": folders of PNG and JPEG files, a subfolder a class.
#include "base/error.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using data::ImageFolder;

data::ImageFolderOptions folder_options(const Config& c) {
  return {.height = c.input[0],
          .width = c.input[1],
          .read = {.channels = static_cast<int>(c.input[2]), .max_pixels = c.data.max_pixels},
          .classes = c.data.classes};
}

// The training images, after `limit`; the classes become those of the configuration.
ImageFolder training_folder(Config& c) {
  ImageFolder all(c.data.train.inputs, folder_options(c));
  if (static_cast<std::int64_t>(all.classes().size()) != c.output.back())
    fail(ErrorKind::config, "{}: {} classes (subfolders) for a model of {} outputs", c.data.train.inputs,
         all.classes().size(), c.output.back());
  c.data.classes = all.classes();
  subtable(c.root, "data").set("classes", Node::list(c.data.classes));
  return c.data.limit > 0 ? all.take(c.data.limit, Key{c.seed}.fold("limit")) : all;
}

double scaled_by(const DataConfig& d) { return d.scale.value_or(1.0 / 255) * 255; }

// Bytes are divided by 255, go through `steps`, and are normalised.
SourcePtr ready(const Config& c, const ImageFolder& folder, std::vector<augment::StepPtr> steps = {}) {
  if (scaled_by(c.data) != 1 || !c.data.mean.empty() || !c.data.std.empty())
    steps.push_back(normalization(c.data, scaled_by(c.data)));
  return augment::augmented(std::make_shared<const ImageFolder>(folder), augment::Pipeline(std::move(steps)));
}

void find_moments(Config& c, const ImageFolder& folder) {
  DataConfig& d = c.data;
  const data::Moments m = folder.moments();
  d.mean.assign(m.mean.begin(), m.mean.end());
  d.std.assign(m.stddev.begin(), m.stddev.end());
  for (double& x : d.mean) x *= scaled_by(d);
  for (double& x : d.std) x *= scaled_by(d);
  Node& tree = subtable(c.root, "data");
  tree.set("mean", Node::list(d.mean));
  tree.set("std", Node::list(d.std));
  tree.set("normalize", Node::of(false));
  d.normalize = false;
}

// Images to predict, by their paths.
class ImagePaths final : public data::Source {
 public:
  ImagePaths(std::vector<std::string> paths, const Config& c)
      : paths_(std::move(paths)), options_(folder_options(c)), pipeline_{normalization(c.data, scaled_by(c.data))} {}
  std::int64_t size() const override { return static_cast<std::int64_t>(paths_.size()); }
  data::Batch fetch(std::span<const std::int64_t> rows, Key) const override {
    std::vector<std::string> paths;
    for (const std::int64_t row : rows) paths.push_back(paths_.at(static_cast<std::size_t>(row)));
    return {pipeline_(data::load_images(paths, options_), Key{}), {}};
  }
  std::string name() const override { return paths_.front(); }

 private:
  std::vector<std::string> paths_;
  data::ImageFolderOptions options_;
  augment::Pipeline pipeline_;
};

}  // namespace

Datasets load_image_folders(Config& c) {
  ImageFolder train = training_folder(c);
  std::optional<ImageFolder> validation;
  if (c.data.validation_fraction > 0) {
    auto [larger, smaller] = train.split(c.data.validation_fraction, Key{c.seed});
    train = larger;
    validation = smaller;
  }
  if (c.data.validation) validation.emplace(c.data.validation->inputs, folder_options(c));
  if (c.data.normalize) find_moments(c, train);
  Datasets sets;
  sets.train = ready(c, train);
  sets.altered = c.augment.empty() ? sets.train : ready(c, train, c.augment.steps());
  if (validation) sets.validation = ready(c, *validation);
  if (c.data.test) sets.test = ready(c, ImageFolder(c.data.test->inputs, folder_options(c)));
  return sets;
}

SourcePtr load_image_folder(Config& c, Split split) {
  const bool own = split == Split::test || (split == Split::validation && c.data.validation);
  if (own && !c.data.classes.empty()) return ready(c, ImageFolder(files_of(c, split).inputs, folder_options(c)));
  const Datasets sets = load_image_folders(c);
  const SourcePtr& found = split == Split::train ? sets.train : split == Split::test ? sets.test : sets.validation;
  if (!found) files_of(c, split);  // throws
  return found;
}

Inputs load_image_inputs(const Config& c, const std::string& path) {
  std::vector<std::string> paths = data::image_paths(path);
  auto rows = std::make_shared<const ImagePaths>(paths, c);
  return {std::move(rows), std::move(paths)};
}

}  // namespace bp::train
