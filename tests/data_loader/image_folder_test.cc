// Folders of images: classes, order, sizes, and what is told about folders and files that are not as they should be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "bp/augment.h"
#include "bp/error.h"
#include "bp/images.h"
#include "data/resize.h"
#include "message_of.h"

namespace bp::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Rows = std::vector<std::int64_t>;

class Folder : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_); }
  void TearDown() override { fs::remove_all(root_); }
  // An image of one colour.
  void put(const std::string& name, int value, std::int64_t height = 4, std::int64_t width = 6) {
    const fs::path path = fs::path(root_) / name;
    fs::create_directories(path.parent_path());
    Array image = Array::empty(DType::u8, {height, width, 3});
    std::fill_n(image.mutable_data<std::uint8_t>(), image.numel(), static_cast<std::uint8_t>(value));
    io::write_png(path.string(), image);
  }
  void text(const std::string& name, const std::string& content) {
    const fs::path path = fs::path(root_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content;
  }
  void pets() {
    for (int i = 0; i < 6; ++i) put("dog/" + std::to_string(i) + ".png", 100 + i);
    put("cat/b.PNG", 11);
    put("cat/a.png", 10);
    put("cat/deeper/c.png", 12);
  }
  std::string root_ = ::testing::TempDir() + "bp_image_folder_test";
  ImageFolderOptions small_{.height = 2, .width = 3};
};

TEST_F(Folder, ClassesAreTheSubfoldersInOrder) {
  pets();
  text("cat/notes.txt", "not an image");
  text("cat/.hidden.png", "not an image");
  text(".cache/x.png", "not an image");
  text("README", "not a class");
  const ImageFolder folder(root_, small_);
  EXPECT_EQ(folder.classes(), (std::vector<std::string>{"cat", "dog"}));
  ASSERT_EQ(folder.size(), 9);
  EXPECT_THAT(folder.path(2), HasSubstr("cat/deeper/c.png"));
  const Batch b = folder.fetch(Rows{0, 1, 2, 8});
  EXPECT_EQ(b.x.shape, (Shape{4, 2, 3, 3}));
  EXPECT_EQ(b.x.values<std::uint8_t>()[0], 10);
  EXPECT_EQ(b.x.values<std::uint8_t>()[18], 11);
  EXPECT_EQ(b.x.values<std::uint8_t>()[71], 105);
  EXPECT_EQ(b.y.values<std::int64_t>()[2], 0);
  EXPECT_EQ(b.y.values<std::int64_t>()[3], 1);
  folder.check_targets(2, "labels");
  message_of(ErrorKind::value, [&] { folder.check_targets(1, "labels"); });
  message_of(ErrorKind::value, [&] { folder.fetch(Rows{9}); });
}

TEST_F(Folder, PartsAreDisjointAndRepeat) {
  pets();
  const ImageFolder folder(root_, small_);
  const auto [train, held_out] = folder.split(0.3, Key{1});
  EXPECT_EQ(train.size(), 6);
  EXPECT_EQ(held_out.size(), 3);
  std::vector<std::string> all;
  for (std::int64_t i = 0; i < 6; ++i) all.push_back(train.path(i));
  for (std::int64_t i = 0; i < 3; ++i) all.push_back(held_out.path(i));
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  EXPECT_EQ(folder.split(0.3, Key{1}).second.path(0), held_out.path(0));
  EXPECT_EQ(folder.take(4, Key{2}).size(), 4);
  EXPECT_EQ(folder.take(40, Key{2}).size(), 9);
  message_of(ErrorKind::value, [&] { folder.split(1, Key{}); });
  const Moments m = folder.take(1, Key{3}).moments();
  EXPECT_EQ(m.stddev, (std::vector<float>{1, 1, 1}));
  put("e/0.png", 0);
  put("e/1.png", 255);
  fs::remove_all(root_ + "/cat");
  fs::remove_all(root_ + "/dog");
  put("f/0.png", 255);
  put("f/1.png", 0);
  EXPECT_NEAR(ImageFolder(root_, small_).moments().mean[1], 0.5, 1e-6);
  EXPECT_NEAR(ImageFolder(root_, small_).moments().stddev[2], 0.5, 1e-6);
}

TEST_F(Folder, TheLoadersThreadsDecode) {
  pets();
  const auto source = augment::augmented(std::make_shared<ImageFolder>(root_, small_), {augment::flip()});
  for (const int threads : {1, 4}) {
    DataLoader loader(source, {.batch_size = 2, .key = Key{1}, .threads = threads});
    int images = 0;
    for (int epoch = 0; epoch < 3; ++epoch)
      for (const auto& [x, y] : loader)
        for (std::int64_t i = 0; i < 2; ++i, ++images)
          EXPECT_EQ(x.data<float>()[i * 18] > 0.3f, y.data<std::int64_t>()[i] == 1);
    EXPECT_EQ(images, 24);
  }
}

TEST_F(Folder, TheClassesOfTrainingHoldElsewhere) {
  put("dog/1.png", 1);
  put("emu/1.png", 2);
  ImageFolderOptions options = small_;
  options.classes = {"cat", "dog", "emu"};
  const ImageFolder test(root_, options);
  EXPECT_EQ(test.fetch(Rows{1}).y.values<std::int64_t>()[0], 2);
  put("yak/1.png", 2);
  EXPECT_THAT(message_of(ErrorKind::format, [&] { ImageFolder(root_, options); }),
              HasSubstr("the subfolder yak is none of the classes: cat, dog, emu"));
}

TEST_F(Folder, MistakesAreExplained) {
  const auto told = [&](ErrorKind kind, const ImageFolderOptions& options) {
    return message_of(kind, [&] { ImageFolder(root_, options); });
  };
  EXPECT_THAT(told(ErrorKind::format, small_), HasSubstr("two or more classes, found none"));
  put("cat/1.png", 1);
  EXPECT_THAT(told(ErrorKind::format, small_), HasSubstr("found only cat"));
  fs::create_directory(root_ + "/dog");
  EXPECT_THAT(told(ErrorKind::format, small_), HasSubstr("dog: holds no image: expected .png, .jpg or .jpeg files"));
  text("dog/1.png", "GIF89a");
  EXPECT_THAT(told(ErrorKind::value, {.height = 0, .width = 2}), HasSubstr("a size of 0 x 2"));
  EXPECT_THAT(told(ErrorKind::value, {.height = 2, .width = 2, .read = {.channels = 4}}), HasSubstr("channels is 4"));
  const ImageFolder folder(root_, small_);
  EXPECT_THAT(message_of(ErrorKind::format,
                         [&] {
                           folder.fetch(Rows{0, 1});
                         }),
              HasSubstr("dog/1.png: its first bytes"));
  DataLoader loader(std::make_shared<ImageFolder>(folder), {.batch_size = 1, .shuffle = false, .threads = 2});
  EXPECT_TRUE(loader.next());
  EXPECT_THAT(message_of(ErrorKind::format, [&] { loader.next(); }), HasSubstr("dog/1.png"));
  fs::remove(root_ + "/dog/1.png");
  EXPECT_THAT(message_of(ErrorKind::io, [&] { folder.fetch(Rows{1}); }), HasSubstr("dog/1.png"));
  EXPECT_THAT(message_of(ErrorKind::io, [&] { ImageFolder(root_ + "/no", small_); }),
              HasSubstr("cannot read the folder"));
}

TEST_F(Folder, PathsOfInputs) {
  pets();
  const std::vector<std::string> paths = image_paths(root_);
  ASSERT_EQ(paths.size(), 9u);
  EXPECT_EQ(load_images(paths, small_).shape, (Shape{9, 2, 3, 3}));
  EXPECT_EQ(image_paths("some.png"), (std::vector<std::string>{"some.png"}));
  fs::create_directory(root_ + "/none");
  message_of(ErrorKind::format, [&] { image_paths(root_ + "/none"); });
}

std::vector<float> resized(const std::vector<std::uint8_t>& image, std::int64_t h, std::int64_t w, std::int64_t height,
                           std::int64_t width, std::int64_t channels = 1) {
  std::vector<float> out(static_cast<std::size_t>(height * width * channels));
  resize({image.data(), h, w, channels}, out.data(), height, width);
  return out;
}

TEST(Resize, ShrinkingTakesMeansOfWhatIsCovered) {
  EXPECT_EQ(resized({1, 3, 5, 7, 9, 11, 13, 15}, 2, 4, 1, 2), (std::vector<float>{6, 10}));
  const std::vector<float> thirds = resized({0, 30, 90}, 1, 3, 1, 2);  // 1.5 pixels each
  EXPECT_NEAR(thirds[0], (0 + 0.5 * 30) / 1.5, 1e-4);
  EXPECT_NEAR(thirds[1], (0.5 * 30 + 90) / 1.5, 1e-4);
  EXPECT_EQ(resized({1, 2, 3, 4, 5, 6}, 1, 3, 1, 1, 2), (std::vector<float>{3, 4}));  // channels apart
}

TEST(Resize, GrowingIsBilinear) {
  EXPECT_EQ(resized({0, 40}, 1, 2, 1, 4), (std::vector<float>{0, 10, 30, 40}));
  EXPECT_EQ(resized({7}, 1, 1, 2, 3), std::vector<float>(6, 7.0f));
  EXPECT_EQ(resized({0, 40}, 2, 1, 4, 1), (std::vector<float>{0, 10, 30, 40}));
}

// A constant stays one whatever the sizes, and the mean of a whole number of pixels stays.
TEST(Resize, OddSizes) {
  for (std::int64_t from = 1; from < 12; ++from)
    for (std::int64_t to = 1; to < 14; ++to) {
      for (const float v : resized(std::vector<std::uint8_t>(static_cast<std::size_t>(from * 5), 200), from, 5, to, 3))
        EXPECT_NEAR(v, 200, 1e-3) << from << " to " << to;
      if (to > from) continue;
      std::vector<std::uint8_t> ramp;
      for (std::int64_t i = 0; i < from; ++i) ramp.push_back(static_cast<std::uint8_t>(i * i));
      double before = 0, after = 0;
      for (const std::uint8_t v : ramp) before += v / static_cast<double>(from);
      for (const float v : resized(ramp, from, 1, to, 1)) after += v / static_cast<double>(to);
      EXPECT_NEAR(before, after, 1e-3) << from << " to " << to;
    }
}

}  // namespace
}  // namespace bp::data
