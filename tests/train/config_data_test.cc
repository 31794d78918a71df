// [data] and what is done to images: datasets and streams of every format, and what each mistake is told.
#include <cstring>
#include <numeric>

#include "bp/error.h"
#include "bp/ops.h"
#include "config_fixture.h"

namespace bp::train_test {
namespace {

data::Batch all_of(const data::Source& source) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(source.size()));
  std::iota(rows.begin(), rows.end(), 0);
  return source.fetch(rows, Key{});
}

class Data : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ + "/" + name) << text; }
  Config csv(const std::string& data, const std::string& loss, const std::string& layers) {
    return parse_config(parse_toml("[data]\nformat = \"csv\"\ntrain = \"t.csv\"\n" + data + "\n[model]\n" + layers +
                                       "\n[loss]\ntype = \"" + loss + "\"\n[optimizer]\ntype = \"sgd\"\n",
                                   "net.toml"),
                        folder_, "net");
  }
  std::string folder_ = ::testing::TempDir() + "bp_config_test";
};

constexpr const char* kTwoIn = "input = [2]\nlayers = [{ type = \"linear\", units = 3 }]";

TEST_F(Data, CsvClassesComeFromTheTrainingFileAndStay) {
  write("t.csv", "a,kind,b\n1,cat,10\n2,dog,20\n3,emu,30\n");
  write("test.csv", "b,a,kind\n1,7,emu\n");
  Config c = csv("target = \"kind\"\ntest = \"test.csv\"\nnormalize = true", "cross_entropy", kTwoIn);
  const Datasets sets = load_datasets(c);
  EXPECT_EQ(c.data.classes, (std::vector<std::string>{"cat", "dog", "emu"}));
  EXPECT_EQ(c.data.csv.columns, (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(c.data.mean.size(), 2u);
  EXPECT_FLOAT_EQ(static_cast<float>(c.data.mean[1]), 20);
  const data::Batch test = all_of(*sets.test);
  EXPECT_EQ(test.y.values<std::int64_t>()[0], 2);
  const Array x = test.x;
  EXPECT_NEAR(x.values<float>()[0], (7 - 2) / std::sqrt(2.0 / 3), 1e-5);

  // What the run's config.toml says treats other files alike.
  Config again = parse_config(parse_toml(to_toml(c.root), "config.toml"), "/elsewhere", "net");
  write("new.csv", "b,a\n1,7\n");
  const Array inputs = all_of(*load_inputs(again, folder_ + "/new.csv").rows).x;
  EXPECT_EQ(inputs.values<float>()[0], x.values<float>()[0]);
  EXPECT_EQ(inputs.values<float>()[1], x.values<float>()[1]);
  write("test.csv", "b,a,kind\n1,7,cow\n");
  EXPECT_THAT(message_of([&] { load_split(again, Split::test); }, ErrorKind::format), HasSubstr("cow"));
}

TEST_F(Data, IncompleteRowsAreLeftOutOfTrainingButNotOfPredictions) {
  write("t.csv", "a,kind,b\n1,cat,10\n2,NA,20\nNA,dog,0\n3,emu,30\n5,dog,20\n");
  Config c = csv("target = \"kind\"\nmissing = \"drop_row\"", "cross_entropy", kTwoIn);
  EXPECT_EQ(load_datasets(c).train->size(), 3);
  write("new.csv", "b,a\n1,7\nNA,8\n");
  EXPECT_THAT(message_of([&] { load_inputs(c, folder_ + "/new.csv"); }, ErrorKind::format),
              HasSubstr("new.csv: line 3"));
}

TEST_F(Data, CategoriesBecomeColumns) {
  write("t.csv", "a,color,kind\n1,red,x\n2,blue,y\n3,green,x\n");
  Config c = csv("target = \"kind\"\ncategorical = [\"color\"]\none_hot = true", "cross_entropy",
                 "input = [4]\nlayers = [{ type = \"linear\", units = 2 }]");
  const Array x = all_of(*load_datasets(c).train).x;
  EXPECT_THAT(std::vector<float>(x.values<float>().begin(), x.values<float>().end()),
              ::testing::ElementsAre(1, 0, 0, 1, 2, 1, 0, 0, 3, 0, 1, 0));  // a, blue, green, red
  write("new.csv", "color,a\ngreen,9\n");
  EXPECT_EQ(all_of(*load_inputs(c, folder_ + "/new.csv").rows).x.values<float>()[2], 1);
  Config narrow = csv("target = \"kind\"\ncategorical = [\"color\"]\none_hot = true", "cross_entropy",
                      "input = [2]\nlayers = [{ type = \"linear\", units = 2 }]");
  EXPECT_THAT(message_of([&] { load_datasets(narrow); }, ErrorKind::shape),
              HasSubstr("[3, 4] do not fit model.input [2]"));
}

// Mean and deviation are those of the rows that are trained on, whatever is held out.
TEST_F(Data, ColumnsAreStandardisedByTheTrainingPart) {
  std::string text = "a,b,kind\n";
  for (int i = 0; i < 40; ++i)
    text += std::to_string(i * i) + "," + std::to_string(-i) + "," + (i % 2 ? "x" : "y") + "\n";
  write("t.csv", text);
  Config c = csv("target = \"kind\"\nvalidation_fraction = 0.4\nnormalize = true", "cross_entropy",
                 "input = [2]\nlayers = [{ type = \"linear\", units = 2 }]");
  const Datasets sets = load_datasets(c);
  ASSERT_EQ(sets.train->size(), 24);
  const Array x = all_of(*sets.train).x;
  for (std::size_t column = 0; column < 2; ++column) {
    double mean = 0, square = 0;
    for (std::size_t i = 0; i < 24; ++i) mean += x.values<float>()[2 * i + column] / 24.0;
    for (std::size_t i = 0; i < 24; ++i) square += std::pow(x.values<float>()[2 * i + column], 2) / 24;
    EXPECT_NEAR(mean, 0, 1e-5);
    EXPECT_NEAR(square, 1, 1e-5);
  }
}

TEST_F(Data, BadTablesAreNamed) {
  const std::string head = "a,b,y\n";
  const auto load = [&](ErrorKind kind, const std::string& text, const char* data = "target = \"y\"") {
    write("t.csv", text);
    return message_of(
        [&] {
          Config c = csv(data, "squared_error", "input = [2]\nlayers = [{ type = \"linear\", units = 1 }]");
          load_datasets(c);
        },
        kind);
  };
  EXPECT_THAT(load(ErrorKind::format, head + "1,2,nan\n"), HasSubstr("t.csv"));
  EXPECT_THAT(load(ErrorKind::format, head + "1,x,3\n"), HasSubstr("t.csv"));
  EXPECT_THAT(load(ErrorKind::value, head + "1,2,3\n", "target = \"z\""), HasSubstr("\"z\""));
  EXPECT_THAT(load(ErrorKind::shape, "a,b,c,y\n1,2,3,4\n"), HasSubstr("model.input [2]"));
}

TEST_F(Data, RegressionTargetsBecomeColumnsAndNaNIsFound) {
  const std::string x = folder_ + "/x.npy", y = folder_ + "/y.npy";
  std::vector<double> in(8, 1.0);
  io::write_npy(x, Array::from(in, {4, 2}));
  io::write_npy(y, Array::from(std::vector<std::int64_t>{1, 2, 3, 4}, {4}));
  const std::string text =
      "[data]\nformat = \"npy\"\ntrain = { inputs = \"x.npy\", targets = \"y.npy\" }\n[model]\ninput = 2\nlayers = [{ "
      "type = \"linear\", units = 1 }]\n[loss]\ntype = \"l1\"\n[optimizer]\ntype = \"sgd\"\n";
  Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
  const Datasets sets = load_datasets(c);
  EXPECT_EQ(all_of(*sets.train).y.shape, (Shape{4, 1}));
  EXPECT_EQ(all_of(*sets.train).y.dtype, DType::f32);
  in[5] = NAN;
  io::write_npy(x, Array::from(in, {4, 2}));
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::value), HasSubstr("row 2"));
  io::write_npy(x, Array::from(std::vector<double>(6, 1.0), {3, 2}));
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::format), HasSubstr("do not belong together"));
}

// Batches of an epoch, with augmentation, one after the other.
std::vector<data::Batch> batches_of(const SourcePtr& source) {
  data::DataLoader loader(source, {.batch_size = 5, .key = Key(3), .drop_last = false});
  std::vector<data::Batch> all;
  while (auto b = loader.next()) all.push_back(std::move(*b));
  return all;
}

void expect_same(const SourcePtr& one, const SourcePtr& other) {
  ASSERT_EQ(one != nullptr, other != nullptr);
  if (one == nullptr) return;
  const auto a = batches_of(one), b = batches_of(other);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const auto& [x, y] : {std::pair(a[i].x, b[i].x), std::pair(a[i].y, b[i].y)}) {
      ASSERT_EQ(x.dtype, y.dtype);
      ASSERT_EQ(x.shape, y.shape);
      if (x.bytes() == 0) continue;
      EXPECT_EQ(std::memcmp(x.buffer.data(), y.buffer.data(), x.bytes()), 0);
    }
}

// Everything a configuration may ask of the rows is the same from disk as from memory.
TEST_F(Data, StreamsTheBatchesThatMemoryGives) {
  std::string text = "color,a,kind,b\n";
  std::vector<std::uint8_t> pixels, labels;
  for (int i = 0; i < 40; ++i) {
    text += std::string(i % 3 ? "red" : "blue") + "," + std::to_string(i * i) + "," + (i % 2 ? "x" : "y") + "," +
            (i == 7 ? "NA" : "0.5") + "\n";
    labels.push_back(static_cast<std::uint8_t>(i % 2));
    for (int p = 0; p < 16; ++p) pixels.push_back(static_cast<std::uint8_t>(i * p * 31));
  }
  write("t.csv", text);
  write("new.csv", "b,color,a\n1,red,3\n2,blue,4\n-1,red,5\n");
  const std::string x = folder_ + "/x.idx", y = folder_ + "/y.idx", wide = folder_ + "/x.npy",
                    narrow = folder_ + "/y.npy";
  io::write_idx(x, Array::from(pixels, {40, 4, 4}));
  io::write_idx(y, Array::from(labels, {40}));
  io::write_npy(wide, convert(Array::from(pixels, {40, 16}), DType::f64));
  io::write_npy(narrow, Array::from(labels, {40}));
  const std::string shared = "limit = 37\nvalidation_fraction = 0.25\nnormalize = true\n",
                    end = "\n[optimizer]\ntype = \"sgd\"\n",
                    image =
                        "layers = [{ type = \"flatten\" }, { type = \"linear\", units = 2 }]\n[loss]\ntype = "
                        "\"cross_entropy\"\n[[augment]]\ntype = \"flip\"\n[[augment]]\ntype = \"mixup\"",
                    table = "target = \"kind\"\ncategorical = [\"color\"]\none_hot = true\nmissing = \"drop_row\"\n";
  const std::vector<std::string> to_predict = {"/new.csv", "/x.idx", "/x.npy", "/x.npy"};
  const std::vector<std::string> texts = {
      "[data]\nformat = \"csv\"\ntrain = \"t.csv\"\ntest = \"t.csv\"\n" + shared + table +
          "[model]\ninput = 4\nlayers = [{ type = \"linear\", units = 2 }]\n[loss]\ntype = \"cross_entropy\"" + end,
      "[data]\nformat = \"idx\"\ntrain = { inputs = \"x.idx\", targets = \"y.idx\" }\n" + shared +
          "[model]\ninput = [4, 4, 1]\n" + image + end,
      "[data]\nformat = \"npy\"\ntrain = { inputs = \"x.npy\", targets = \"y.npy\" }\nscale = 0.01\n" + shared +
          "[model]\ninput = [4, 4, 1]\n" + image + end,
      "[data]\nformat = \"npy\"\ntrain = { inputs = \"x.npy\", targets = \"y.npy\" }\n[model]\ninput = "
      "16\nlayers = [{ type = \"linear\", units = 1 }]\n[loss]\ntype = \"l1\"" +
          end};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto load = [&](const char* stream) {
      Node root = parse_toml(texts[i], "net.toml");
      override_key(root, std::string("data.stream=") + stream);
      Config c = parse_config(std::move(root), folder_, "net");
      Datasets sets = load_datasets(c);
      subtable(c.root, "data").set("stream", Node::of(false));
      return std::tuple(std::move(sets), to_toml(c.root), load_inputs(c, folder_ + to_predict[i]).rows);
    };
    const auto [memory, as_memory, new_in_memory] = load("false");
    const auto [disk, as_disk, new_on_disk] = load("true");
    EXPECT_EQ(dynamic_cast<const data::ArrayDataset*>(new_on_disk.get()), nullptr);
    expect_same(new_in_memory, new_on_disk);
    EXPECT_EQ(as_memory, as_disk);  // means, categories, columns
    EXPECT_EQ(memory.streamed, "");
    EXPECT_THAT(disk.streamed, HasSubstr("shuffled exactly"));
    expect_same(memory.train, disk.train);
    expect_same(memory.altered, disk.altered);
    expect_same(memory.validation, disk.validation);
    expect_same(memory.test, disk.test);
  }
}

TEST_F(Data, SeveralFilesAreReadForward) {
  write("t_0.csv", "a,kind,b\n1,cat,10\n2,dog,20\n");
  write("t_1.csv", "a,kind,b\n3,emu,30\n");
  const std::string keys = "train = \"t_*.csv\"\ntarget = \"kind\"\n";
  const auto load = [&](const std::string& more) {
    const std::string text = "[data]\nformat = \"csv\"\n" + keys + more + "\n[model]\n" + kTwoIn +
                             "\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n";
    Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
    return std::pair(load_datasets(c), c);
  };
  const auto [sets, c] = load("normalize = true\nshuffle_buffer = \"2 MiB\"");
  EXPECT_EQ(sets.train->size(), 3);
  EXPECT_THAT(sets.streamed, HasSubstr("t_*.csv, shuffled by files and a buffer of 2 MiB"));
  EXPECT_EQ(c.data.classes, (std::vector<std::string>{"cat", "dog", "emu"}));
  EXPECT_FLOAT_EQ(static_cast<float>(c.data.mean[1]), 20);
  std::set<std::int64_t> seen;
  for (const data::Batch& b : batches_of(sets.train))
    seen.insert(b.y.values<std::int64_t>().begin(), b.y.values<std::int64_t>().end());
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_THAT(message_of([&] { load("limit = 2"); }, ErrorKind::config), HasSubstr("data.limit: "));
  EXPECT_THAT(message_of([&] { load("validation_fraction = 0.5"); }, ErrorKind::config),
              HasSubstr("t_*.csv can only be read forward: give data.validation"));
}

TEST_F(Data, WhatIsWrongInAStreamIsNamedWithItsRow) {
  const std::string x = folder_ + "/x.npy", y = folder_ + "/y.npy";
  std::vector<double> in(8, 1.0);
  std::vector<std::int64_t> ids{0, 1, 2, 7};
  const std::string text =
      "[data]\nformat = \"npy\"\nstream = true\ntrain = { inputs = \"x.npy\", targets = \"y.npy\" }\n[model]\n" +
      std::string(kTwoIn) + "\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n";
  const auto read = [&](std::vector<std::int64_t> rows) {
    io::write_npy(x, Array::from(in, {4, 2}));
    io::write_npy(y, Array::from(ids, {4}));
    Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
    return load_datasets(c).train->fetch(rows, Key{});
  };
  EXPECT_EQ(read({0, 2}).y.values<std::int64_t>()[1], 2);
  EXPECT_THAT(message_of([&] { read({2, 3}); }, ErrorKind::value), HasSubstr("y.npy: row 3 has class 7"));
  in[5] = NAN;
  EXPECT_THAT(message_of([&] { read({1, 2}); }, ErrorKind::value), HasSubstr("x.npy: row 2, element 1 is nan"));
  io::write_npy(x, Array::from(std::vector<double>(12, 1.0), {4, 3}));
  Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::shape), HasSubstr("model.input [2]"));
}

// [data] of text for a model [3] -> [3, symbols], which need not be there.
class TextData : public Data {
 protected:
  Config text(const std::string& keys, std::int64_t symbols) {
    Config c;
    c.root = parse_toml("[data]\nformat = \"text\"\ntrain = \"t.txt\"\n" + keys +
                            "\n[model]\nlayers = [{ type = \"linear\", units = \"vocabulary\", name = "
                            "\"vocabulary\" }]\n[loss]\ntype = \"cross_entropy\"\n",
                        "net.toml");
    read_vocabulary(c, folder_);
    c.input = {3};
    c.output = {3, symbols};
    read_data(Section(*c.root.find("data"), "data", "data"), folder_, c);
    return c;
  }
};

TEST_F(TextData, TheLastPartIsHeldOutAndTheVocabularyRecorded) {
  write("t.txt", "abcdefghijabcdefghij\n\"\\é");
  Config c = text("validation_fraction = 0.25\nblocks = 7", 14);
  EXPECT_EQ(c.root.find("data")->find("vocabulary")->text, "\n\"\\abcdefghijé");
  const Node& layer = c.root.find("model")->find("layers")->items[0];
  EXPECT_EQ(layer.find("units")->integer, 14);
  EXPECT_EQ(layer.find("name")->text, "vocabulary");
  EXPECT_EQ(c.input_dtype(), DType::i64);
  const Datasets sets = load_datasets(c);
  EXPECT_EQ(sets.train->size(), 7);
  const data::Batch held_out = all_of(*sets.validation);  // i j \n " \ é, after 18 of 24
  EXPECT_EQ(held_out.x.shape, (Shape{1, 3}));
  EXPECT_EQ(held_out.y.values<std::int64_t>()[2], 1);
  EXPECT_EQ(load_split(c, Split::train)->size(), 5);  // side by side
  EXPECT_EQ(load_split(c, Split::validation)->size(), 1);
  EXPECT_THAT(message_of([&] { load_split(c, Split::test); }, ErrorKind::config), HasSubstr("data.test"));
  EXPECT_THAT(message_of([&] { load_inputs(c, "x.npy"); }, ErrorKind::config), HasSubstr("bp sample"));

  // The run's configuration knows the symbols without the file, and refuses others.
  write("t.txt", "abz abz abz");
  Config again;
  again.root = parse_toml(to_toml(c.root), "config.toml");
  read_vocabulary(again, "/elsewhere");
  EXPECT_EQ(*again.data.vocabulary, *c.data.vocabulary);
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::value), HasSubstr("\"z\" (U+007A) at byte 2"));
}

TEST_F(TextData, BytesAndOtherFiles) {
  write("t.txt", "\xff\xfe 12345678");
  write("v.txt", "hello");
  Config c = text("unit = \"byte\"\nvalidation = \"v.txt\"\ntest = \"v.txt\"\nstride = 1\nlimit = 6", 256);
  const Datasets sets = load_datasets(c);
  EXPECT_EQ(sets.train->size(), 1);
  EXPECT_EQ(sets.validation->size(), 2);
  EXPECT_EQ(all_of(*sets.test).y.values<std::int64_t>()[5], 'o');
}

TEST_F(TextData, BytesMayStayOnTheDisk) {
  write("t.txt", "to be or not to be, that is the question");
  write("v.txt", "hello world");
  for (const char* keys : {"validation_fraction = 0.3\nblocks = 9", "validation = \"v.txt\"\nstride = 2\nlimit = 20"}) {
    const auto load = [&](const std::string& stream) {
      Config c = text("unit = \"byte\"\n" + (stream + keys), 256);
      return std::pair(load_datasets(c), load_split(c, Split::validation));
    };
    const auto [memory, held_out] = load("");
    const auto [disk, held_out_on_disk] = load("stream = true\n");
    EXPECT_THAT(disk.streamed, HasSubstr("t.txt"));
    expect_same(memory.train, disk.train);
    expect_same(memory.validation, disk.validation);
    expect_same(held_out, held_out_on_disk);
  }
  write("v.txt", "\x1f\x8b\b...");
  Config c = text("unit = \"byte\"\nstream = true\nvalidation = \"v.txt\"", 256);
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::config), HasSubstr("v.txt: is compressed"));
  EXPECT_THAT(message_of([&] { text("stream = true", 23); }, ErrorKind::config), HasSubstr("expected unit = \"byte\""));
}

TEST_F(TextData, WhatMemoryDoesNotHoldIsRefused) {
  write("t.txt", "a");
  std::error_code no_holes;  // a file of 8 TB without content
  std::filesystem::resize_file(folder_ + "/t.txt", std::uintmax_t{1} << 43, no_holes);
  if (no_holes) GTEST_SKIP() << "no files with holes here";
  EXPECT_THAT(message_of([&] { text("", 1); }, ErrorKind::value), HasSubstr("expected data.unit = \"byte\""));
  Config c = text("vocabulary = \"ab\"", 2);
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::value), HasSubstr("8796.1 GB of text"));
  Config bytes = text("unit = \"byte\"\nblocks = 2", 256);
  EXPECT_EQ(load_datasets(bytes).train->size(), 2);
}

TEST_F(TextData, MistakesAreExplained) {
  const auto told = [&](ErrorKind kind, const std::string& file, const std::string& keys, std::int64_t symbols = 5) {
    write("t.txt", file);
    return message_of(
        [&] {
          Config c = text(keys, symbols);
          load_datasets(c);
        },
        kind);
  };
  EXPECT_THAT(told(ErrorKind::format, "", ""), HasSubstr("t.txt: the file is empty"));
  EXPECT_THAT(told(ErrorKind::format, "", "unit = \"byte\"", 256), HasSubstr("t.txt: the file is empty"));
  EXPECT_THAT(told(ErrorKind::format, "ab\xc3", ""), HasSubstr("byte 2 (0xC3) is not UTF-8"));
  EXPECT_THAT(told(ErrorKind::value, "abcde", ""), HasSubstr("context of 3 needs at least 4"));
  EXPECT_THAT(told(ErrorKind::value, "abc", "validation_fraction = 0.0", 3), HasSubstr("holds 3 symbols"));
  EXPECT_THAT(told(ErrorKind::config, "abcde", "", 6), HasSubstr("output is [3, 6], expected [3, 5]"));
  EXPECT_THAT(told(ErrorKind::config, "abcde", "context = 4"), HasSubstr("model.input is [3]"));
  EXPECT_THAT(told(ErrorKind::config, "abcde", "unit = \"word\""), HasSubstr("one of \"char\", \"byte\""));
  EXPECT_THAT(told(ErrorKind::config, "abcde", "mean = 1.0"), HasSubstr("unknown key \"data.mean\""));
  EXPECT_THAT(told(ErrorKind::config, "abcde", "unit = \"byte\"\nvocabulary = \"a\""), HasSubstr("no place"));
  EXPECT_THAT(told(ErrorKind::value, "abcde", "vocabulary = \"abcd\"", 4), HasSubstr("\"e\" (U+0065) at byte 4"));
}

// Folders of 2 x 3 images of one grey: class a of 51 and 102, class b of 204 and 255.
class ImageData : public Data {
 protected:
  void SetUp() override {
    Data::SetUp();
    for (const char* split : {"train", "test"})
      for (const auto& [name, value] : {std::pair("a/1.png", 51), {"a/2.png", 102}, {"b/1.png", 204}, {"b/2.png", 255}})
        put(std::string(split) + "/" + name, value);
  }
  void put(const std::string& name, int value) {
    const std::filesystem::path path = std::filesystem::path(folder_) / name;
    std::filesystem::create_directories(path.parent_path());
    Array image = Array::empty(DType::u8, {4, 6, 1});
    std::fill_n(image.mutable_data<std::uint8_t>(), image.numel(), static_cast<std::uint8_t>(value));
    io::write_png(path.string(), image);
  }
  Config images(const std::string& keys, const std::string& input = "[2, 3, 1]", int units = 2) {
    const std::string text =
        "augment = [{ type = \"noise\", stddev = 1 }]\n[data]\nformat = \"images\"\ntrain = \"train\"\n" + keys +
        "\n[model]\ninput = " + input +
        "\nlayers = [{ type = \"flatten\" }, { type = \"linear\", units = " + std::to_string(units) +
        " }]\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n";
    return parse_config(parse_toml(text, "net.toml"), folder_, "net");
  }
  float first(const SourcePtr& source, std::size_t image) { return all_of(*source).x.values<float>()[image * 6]; }
};

TEST_F(ImageData, FoldersBecomeSplits) {
  Config c = images("test = \"test\"\nvalidation_fraction = 0.25\nmean = 0.2\nstd = 0.1");
  const Datasets sets = load_datasets(c);
  EXPECT_EQ(c.data.classes, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(sets.train->size(), 3);
  EXPECT_EQ(sets.validation->size(), 1);
  EXPECT_NEAR(first(sets.test, 3), (1 - 0.2) / 0.1, 1e-5);
  EXPECT_NE(first(sets.altered, 0), first(sets.train, 0));
  EXPECT_NEAR(first(load_split(c, Split::test), 1), (0.4 - 0.2) / 0.1, 1e-5);
  EXPECT_EQ(first(load_split(c, Split::validation), 0), first(sets.validation, 0));

  const Inputs one = load_inputs(c, folder_ + "/test/b/1.png");
  EXPECT_NEAR(first(one.rows, 0), (0.8 - 0.2) / 0.1, 1e-5);
  const Inputs all = load_inputs(c, folder_ + "/test");
  EXPECT_EQ(all_of(*all.rows).x.shape, (Shape{4, 2, 3, 1}));
  EXPECT_THAT(all.names[2], HasSubstr("test/b/1.png"));
}

TEST_F(ImageData, MomentsScalesAndLimits) {
  Config c = images("normalize = true");
  const Datasets sets = load_datasets(c);
  EXPECT_NEAR(c.data.mean.at(0), 0.6, 1e-6);
  EXPECT_NEAR(c.data.std.at(0), std::sqrt(0.1), 1e-6);
  EXPECT_NEAR(first(sets.train, 3), 0.4 / std::sqrt(0.1), 1e-5);
  Config scaled = images("scale = 1\nmean = 50");
  EXPECT_NEAR(first(load_datasets(scaled).train, 0), 1, 1e-4);
  Config limited = images("limit = 2");
  EXPECT_EQ(load_datasets(limited).train->size(), 2);
}

TEST_F(ImageData, MistakesAreExplained) {
  const auto told = [&](const std::string& keys, const std::string& input = "[2, 3, 1]", int units = 2) {
    return message_of(
        [&] {
          Config c = images(keys, input, units);
          load_datasets(c);
        },
        ErrorKind::config);
  };
  EXPECT_THAT(told("", "[2, 3, 2]"), HasSubstr("expected model.input = [height, width, 1 or 3], got [2, 3, 2]"));
  EXPECT_THAT(told("", "[2, 3, 1]", 3), HasSubstr("2 classes (subfolders) for a model of 3 outputs"));
  EXPECT_THAT(told("max_pixels = 0"), HasSubstr("data.max_pixels"));
  EXPECT_THAT(told("validation = { inputs = \"x\" }"), HasSubstr("expected a path"));
  Config c = images("max_pixels = 23");
  EXPECT_THAT(message_of([&] { all_of(*load_datasets(c).train); }, ErrorKind::format),
              HasSubstr("claims 4 x 6 pixels: expected at most 23"));
}

constexpr const char* kAllSteps = R"(augment = [
  { type = "flip" }, { type = "flip_vertical", probability = 0.1 }, { type = "shift", pixels = 2, border = "edge" },
  { type = "crop", padding = 3, border = "reflect" }, { type = "rotate", degrees = 10, value = 0.5 },
  { type = "affine", degrees = 5, scale = [0.9, 1.1], probability = 0.5 }, { type = "resized_crop" },
  { type = "color", brightness = 0.2, contrast = 0.2, saturation = 0.2, hue = 0.1 }, { type = "noise", stddev = 0.1 },
  { type = "cutout", size = 3 }, { type = "erase", area = [0.1, 0.2] }, { type = "mixup" }, { type = "cutmix" }]
)";

TEST(Augmentation, EveryStepCanBeMade) {
  const Config c = parse(kAllSteps + std::string(kGood));
  ASSERT_EQ(c.augment.steps().size(), types_of("augment").size());
  for (std::size_t i = 0; i < c.augment.steps().size(); ++i)
    EXPECT_THAT(c.augment.steps()[i]->name(), HasSubstr(i == 4 ? "affine" : types_of("augment")[i]));
  const Config again = parse(to_toml(c.root));
  EXPECT_EQ(to_toml(again.root), to_toml(c.root));
  EXPECT_EQ(parse(std::string(kGood) + "[[augment]]\ntype = \"flip\"\n[[augment]]\ntype = \"shift\"\npixels = 1\n")
                .augment.steps()
                .size(),
            2u);
}

TEST(Augmentation, MistakesAreExplained) {
  const auto told = [](const std::string& step) {
    return message_of([&] { parse("augment = [{ " + step + " }]\n" + kGood); }, ErrorKind::config);
  };
  EXPECT_THAT(told("type = \"flop\""),
              HasSubstr("net.toml:1: augment[0].type: there is no \"flop\": did you mean \"flip"));
  EXPECT_THAT(told("type = \"shift\""), HasSubstr("\"pixels\" is missing"));
  EXPECT_THAT(told("type = \"flip\", probability = 2"),
              HasSubstr("augment[0].probability: expected a number in [0, 1]"));
  EXPECT_THAT(told("type = \"crop\", padding = 8, border = \"reflect\""), HasSubstr("cannot mirror 8 pixels"));
  EXPECT_THAT(told("type = \"erase\", area = [0.5, 0.2]"),
              HasSubstr("augment[0].area: expected two numbers, ascending"));
  EXPECT_THAT(told("type = \"affine\", shear = 90"), HasSubstr("shear is 90"));
  EXPECT_THAT(message_of([] { parse("augment = [{ type = \"mixup\" }]\n" + std::string(kGood), {"loss.type=l1"}); },
                         ErrorKind::config),
              HasSubstr("expected a loss of classes"));
  const std::string flat = replaced(kGood, "{ type = \"conv2d\", filters = 4, kernel = 3, padding = \"same\" },\n", "");
  EXPECT_THAT(
      message_of([&] { parse("augment = [{ type = \"flip\" }]\n" + flat, {"model.input=[192]"}); }, ErrorKind::config),
      HasSubstr("expected model.input = [H, W, C], got [192]"));
}

// Steps see scaled images; mean and std are applied after them.
TEST_F(Data, TrainingImagesAreAlteredTheOthersAreNot) {
  io::write_idx(folder_ + "/x", Array::from(std::vector<std::uint8_t>{0, 51, 102, 255}, {2, 1, 2}));
  io::write_idx(folder_ + "/y", Array::from(std::vector<std::uint8_t>{0, 1}, {2}));
  const std::string text =
      "[[augment]]\ntype = \"flip\"\nprobability = 1.0\n[[augment]]\ntype = \"cutmix\"\nprobability = 0.0\n"
      "[data]\nformat = \"idx\"\ntrain = { inputs = \"x\", targets = \"y\" }\nmean = 0.5\nstd = 0.25\nworkers = 3\n"
      "[model]\ninput = [1, 2, 1]\nlayers = [{ type = \"flatten\" }, { type = \"linear\", units = 2 }]\n"
      "[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n";
  Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
  EXPECT_EQ(c.data.workers, 3);
  const Datasets sets = load_datasets(c);
  const data::Batch plain = all_of(*sets.train), altered = all_of(*sets.altered);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(altered.x.values<float>()[i], plain.x.values<float>()[i ^ 1], 1e-6);
  EXPECT_NEAR(plain.x.values<float>()[1], (0.2 - 0.5) / 0.25, 1e-6);
  EXPECT_EQ(altered.y.shape, (Shape{2, 2}));
  EXPECT_EQ(plain.y.dtype, DType::i64);
}

TEST_F(Data, ScalingIsWhatTheKeysSay) {
  io::write_idx(folder_ + "/x", Array::from(std::vector<std::uint8_t>{0, 51, 102, 255}, {2, 2}));
  io::write_idx(folder_ + "/y", Array::from(std::vector<std::uint8_t>{0, 1}, {2}));
  const auto first_row = [&](const std::string& keys) {
    const std::string text =
        "[data]\nformat = \"idx\"\ntrain = { inputs = \"x\", targets = \"y\" }\n" + keys +
        "\n[model]\ninput = 2\nlayers = [{ type = \"linear\", units = 2 }]\n[loss]\ntype = \"cross_entropy\"\n"
        "[optimizer]\ntype = \"sgd\"\n";
    Config c = parse_config(parse_toml(text, "net.toml"), folder_, "net");
    const Array x = all_of(*load_datasets(c).train).x;
    return std::pair(x.values<float>()[0], x.values<float>()[1]);
  };
  EXPECT_NEAR(first_row("").second, 0.2f, 1e-6);
  EXPECT_NEAR(first_row("scale = 1").second, 51.0f, 1e-4);
  EXPECT_NEAR(first_row("scale = 0.1\nmean = 1\nstd = 2").second, (5.1f - 1) / 2, 1e-5);
  EXPECT_NEAR(first_row("mean = [0.1, 0.2]").first, -0.1f, 1e-6);
  EXPECT_NEAR(first_row("mean = [0.1, 0.2]").second, 0.0f, 1e-6);
  // Column 0: 0 and 102 of 255, deviation 51 of 255.
  EXPECT_NEAR(first_row("normalize = true").first, -1.0f, 1e-5);
}

}  // namespace
}  // namespace bp::train_test
