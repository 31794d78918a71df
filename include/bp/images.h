// Images from files: PNG and JPEG as arrays, and folders of them as a source of samples.
//
//   for (const char* path : {"pets/cat/1.png", "pets/dog/1.png"}) {
//     std::filesystem::create_directories(std::filesystem::path(path).parent_path());
//     io::write_png(path, Array::zeros(u8, {48, 32, 3}));
//   }
//   const data::ImageFolder pets("pets", {.height = 64, .width = 64});
//   assert(pets.size() == 2 && pets.classes()[1] == "dog");
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bp/array.h"
#include "bp/data.h"
#include "bp/io.h"

namespace bp::io {

// How an image is read.
struct ImageReadOptions {
  int channels = 3;                                 // 1: grey (0.299 r + 0.587 g + 0.114 b), 3: r g b
  std::int64_t max_pixels = std::int64_t{1} << 26;  // larger ones are refused before memory is taken for them
};

// A PNG or JPEG image, told by its first bytes: u8 [height, width, channels]. 16 bits become 8, palettes their colours,
// CMYK r g b; transparency is dropped, gamma, colour profiles and EXIF's orientation are not applied. Throws Error(io)
// when the file cannot be read; Error(format), naming path and reason, for another format, a file that ends early or is
// corrupt, or too many pixels.
Array read_image(const std::string& path, const ImageReadOptions& options = {});
// As read_image(), from memory.
Array parse_image(Bytes bytes, std::string_view name, const ImageReadOptions& options = {});

// u8 [height, width, 1 or 3]. Written atomically. Throws Error(shape) or Error(dtype) for other arrays.
void write_png(const std::string& path, const Array& image);

}  // namespace bp::io

namespace bp::data {

// How a folder of images becomes rows.
struct ImageFolderOptions {
  std::int64_t height = 0, width = 0;  // to which every image is stretched: by area means or bilinear
  io::ImageReadOptions read{};         // colours and limits
  // The names of ids 0, 1, ...; empty: the subfolders in order. Given (those of the training folder), every subfolder
  // must be among them.
  std::vector<std::string> classes{};
};

// FOLDER/CLASS/.../*.png, *.jpg, *.jpeg, in the order of their paths; hidden files and other names are passed over.
// x: u8 [n, height, width, channels]; y: i64 [n]. Files are listed at once and decoded by fetch(), on the threads of
// the loader, each time they are wanted; fetch() throws as read_image() does, naming the file.
class ImageFolder final : public Source {
 public:
  // Throws Error(io) when the folder cannot be read; Error(value) for options out of range; Error(format) when it has
  // fewer than two classes, a class without images, or one that options.classes lacks.
  ImageFolder(const std::string& folder, ImageFolderOptions options);

  std::int64_t size() const override { return static_cast<std::int64_t>(rows_.size()); }
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  void check_targets(std::int64_t classes, const char* what) const override;

  std::string name() const override { return folder_; }

  const std::vector<std::string>& classes() const noexcept { return options_.classes; }  // names of the ids 0, 1, ...
  const std::string& path(std::int64_t row) const;  // throws Error(value) outside [0, size())

  // n images drawn at random, all when there are fewer; depends only on (size, key).
  ImageFolder take(std::int64_t n, Key key) const;
  // {training, validation}: as ArrayDataset::split().
  std::pair<ImageFolder, ImageFolder> split(double fraction, Key key) const;
  // Over all pixels, as ArrayDataset::moments(): of values in [0, 1]. Reads every image.
  Moments moments() const;

 private:
  struct Entry {
    std::string path;
    std::int64_t label;
  };
  const Entry& entry(std::int64_t row) const;
  ImageFolder subset(std::vector<std::int64_t> rows) const;
  std::string folder_;
  ImageFolderOptions options_;
  std::shared_ptr<const std::vector<Entry>> entries_;
  std::vector<std::int64_t> rows_;  // of entries_
};

// The images of a folder and what lies below it, or one image, without classes: paths in order.
std::vector<std::string> image_paths(const std::string& path);
// Those files as one array u8 [n, height, width, channels].
Array load_images(const std::vector<std::string>& paths, const ImageFolderOptions& options);

}  // namespace bp::data
