// ArrayFile and CsvFile: rows from disk are those of the file read whole, whatever the order, and damage is named.
#include <filesystem>
#include <numeric>

#include "io/csv_records.h"
#include "io/helpers.h"

namespace bp::io {
namespace {

using Rows = std::vector<std::int64_t>;
const Rows kSome{3, 3, 0, 1, 2, 9, 5, 6, 7, 4};

template <class T> Array counting(const Shape& shape) {
  std::vector<T> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(i * 7 % 251);
  return Array::from(v, shape);
}

void expect_rows_of(const Array& whole, const Array& got, const Rows& rows) {
  EXPECT_EQ(got.dtype, whole.dtype);
  Shape shape = whole.shape;
  shape[0] = static_cast<std::int64_t>(rows.size());
  ASSERT_EQ(got.shape, shape);
  const std::size_t bytes = whole.row_bytes();
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(std::memcmp(got.buffer.as<std::byte>() + i * bytes,
                          whole.buffer.as<std::byte>() + static_cast<std::size_t>(rows[i]) * bytes, bytes),
              0)
        << i;
}

TEST(ArrayFile, ReadsTheRowsOfBothFormatsInAnyOrder) {
  const TempDir dir;
  const std::string npy = dir / "a.npy", idx = dir / "a.idx";
  for (const Array& a : {counting<std::uint8_t>({10, 3, 5}), counting<float>({10, 7}), counting<double>({10}),
                         counting<std::int32_t>({10, 1})}) {
    write_npy(npy, a);
    write_idx(idx, a);
    for (const std::string& path : {npy, idx}) {
      const ArrayFile file(path);
      EXPECT_EQ(file.shape(), a.shape);
      EXPECT_EQ(file.dtype(), a.dtype);
      EXPECT_EQ(file.file_bytes(), std::filesystem::file_size(path));
      expect_rows_of(a, file.read(kSome), kSome);
      expect_rows_of(a, file.read(4, 3), {4, 5, 6});
      EXPECT_EQ(file.read(0, 0).rows(), 0);
      expect_error(ErrorKind::value, path + ": row 10 of 10", [&] { file.read(9, 2); });
      expect_error(ErrorKind::value, "row -1 of 10", [&] { file.read(Rows{-1}); });
    }
  }
}

// NPY of element types that become others, as NumPy writes them: '<u2', '>f4', '<f2'.
TEST(ArrayFile, ConvertsAsTheWholeFileIs) {
  const TempDir dir;
  const auto file_of = [&](const std::string& descr, const std::string& values, int rows) {
    std::string header =
        "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", 2), }";
    header.resize(118, ' ');
    header[117] = '\n';
    const std::string path = dir / "b.npy";
    spill(path, std::string("\x93NUMPY\x01\x00", 8) + std::string("\x76\x00", 2) + header + values);
    return path;
  };
  std::string values;
  for (int i = 0; i < 40; ++i) values += static_cast<char>(i * 5);
  for (const auto& [descr, rows] : {std::pair{"<u2", 10}, {"<f2", 10}, {">f4", 5}, {"|b1", 20}, {"|i1", 20}}) {
    const std::string path = file_of(descr, values, rows);
    const Rows some{rows - 1, 0, 2, 3};
    expect_rows_of(read_npy(path), ArrayFile(path).read(some), some);
  }
}

TEST(ArrayFile, RefusesWhatHasNoRowsOnDisk) {
  const TempDir dir;
  const std::string path = dir / "a.npy";
  write_npy(path, counting<float>({6, 4}));
  const std::string good = slurp(path);
  std::string fortran = good;
  fortran.replace(fortran.find("False"), 5, "True ");
  spill(path, fortran);
  expect_error(ErrorKind::format, "Fortran order", [&] { ArrayFile f(path); });
  spill(path, std::string("\x1f\x8b\x08", 3) + good);
  expect_error(ErrorKind::format, "gunzip", [&] { ArrayFile f(path); });
  write_npy(path, counting<float>({}));
  expect_error(ErrorKind::format, "not rows", [&] { ArrayFile f(path); });
  spill(path, good + "x");
  expect_error(ErrorKind::format, "the header claims", [&] { ArrayFile f(path); });
  spill(path, good.substr(0, 40));
  expect_error(ErrorKind::format, path, [&] { ArrayFile f(path); });
  expect_error(ErrorKind::io, "none.npy", [&] { ArrayFile f(dir / "none.npy"); });
}

// A map would end the process by a signal here.
TEST(ArrayFile, AFileThatIsCutMeanwhileIsAnErrorNamingTheRow) {
  const TempDir dir;
  const std::string path = dir / "a.npy";
  write_npy(path, counting<float>({1000, 4}));
  const ArrayFile file(path);
  std::filesystem::resize_file(path, 128 + 500 * 16 + 8);
  expect_rows_of(counting<float>({1000, 4}), file.read(Rows{499}), {499});
  expect_error(ErrorKind::format, "(row 500 of 1000)", [&] { file.read(Rows{2, 500}); });
  expect_error(ErrorKind::format, path, [&] { file.read(498, 4); });
}

// ---- CSV ------------------------------------------------------------------------------------------------------------

void expect_same(const Table& whole, const Table& got, const Rows& rows) {
  ASSERT_EQ(got.columns.size(), whole.columns.size());
  for (std::size_t c = 0; c < whole.columns.size(); ++c) {
    EXPECT_EQ(got.columns[c].name, whole.columns[c].name);
    EXPECT_EQ(got.columns[c].categories, whole.columns[c].categories);
    expect_rows_of(whole.columns[c].values, got.columns[c].values, rows);
  }
}

const char* const kTricky =
    "\xef\xbb\xbfname,size,\"note, long\"\r\n"
    "ant,1,x\r\n"
    "\r\n"
    "\"bee\",2,\"two\r\nlines, \"\"quoted\"\"\"\n"
    "  \n"
    "cow,3,x\r"
    "ant,NA,y\n"
    "dog,5,\"\"\n"
    "emu,6,x";

TEST(CsvFile, ReadsTheRowsOfTheWholeFileInAnyOrder) {
  const TempDir dir;
  const std::string path = dir / "t.csv";
  spill(path, kTricky);
  for (const Missing missing : {Missing::nan, Missing::drop_row}) {
    CsvOptions o{.categorical = {"name", "note, long"}, .missing = missing};
    const Table whole = read_csv(path, o);
    const CsvFile file(path, o);
    ASSERT_EQ(file.rows(), whole.rows());
    for (Rows rows : {Rows{0, 1, 2, 3, 4}, Rows{4, 0, 0, 3, 1}, Rows{2}, Rows{}})
      expect_same(whole, file.read(rows), rows);
    expect_error(ErrorKind::value, path + ": row", [&] { file.read(Rows{whole.rows()}); });
  }
  const CsvFile narrow(path, {.columns = {"size"}, .missing = Missing::nan});
  EXPECT_EQ(narrow.options().columns, std::vector<std::string>{"size"});
  EXPECT_EQ(narrow.read(Rows{4}).columns[0].values.values<float>()[0], 5);
}

// More rows than places: blocks of them are read from their first.
TEST(CsvFile, ALargeFileIsIndexedSparsely) {
  const TempDir dir;
  const std::string path = dir / "t.csv";
  constexpr std::int64_t kRows = (std::int64_t{1} << 21) + 77;
  std::string text = "a,b\n";
  for (std::int64_t i = 0; i < kRows; ++i) text += std::to_string(i % 1000) + "," + std::to_string(i) + "\n";
  spill(path, text);
  const CsvFile file(path, {.dtype = DType::f64});
  ASSERT_EQ(file.rows(), kRows);
  Rows rows;
  for (std::int64_t i = 0; i < 300; ++i) rows.push_back(i * 7919 % kRows);
  for (std::int64_t i = kRows - 40; i < kRows; ++i) rows.push_back(i);
  const Table got = file.read(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(got.columns[1].values.values<double>()[i], static_cast<double>(rows[i]));
    EXPECT_EQ(got.columns[0].values.values<double>()[i], static_cast<double>(rows[i] % 1000));
  }
}

TEST(CsvFile, MistakesAreNamedByTheirLine) {
  const TempDir dir;
  const std::string path = dir / "t.csv";
  const auto file_of = [&](const std::string& text, const CsvOptions& o = {}) {
    spill(path, text);
    return CsvFile(path, o);
  };
  const std::string good = "a,b\n1,\"2\"\n\n3,4\n";
  expect_error(ErrorKind::format, path + ": line 5, column \"b\": \"x\" is not a number", [&] {
    file_of(good + "5,x\n").read(Rows{0, 2});
  });
  expect_error(ErrorKind::format, "line 5 has 3 fields, the header has 2",
               [&] { file_of(good + "5,6,7\n").read(Rows{2}); });
  expect_error(ErrorKind::format, "line 5 has 1 fields", [&] { file_of(good + "5\n", {.categorical = {"a"}}); });
  expect_error(ErrorKind::format, "no rows follow the header", [&] { file_of("a,b\n"); });
  expect_error(ErrorKind::format, "(1 with missing values were dropped)",
               [&] { file_of("a,b\n1,NA\n", {.missing = Missing::drop_row}); });
  expect_error(ErrorKind::format, "the file is empty", [&] { file_of(""); });
  expect_error(ErrorKind::format, "gunzip", [&] { file_of("\x1f\x8b\x08"); });
  expect_error(ErrorKind::value, "there is no column \"c\"", [&] { file_of(good, {.columns = {"c"}}); });
  const CsvFile known = file_of("a,b\n1,cat\n2,cow\n", {.categories = {{"b", {"cat", "dog"}}}});
  expect_error(ErrorKind::format, "line 3, column \"b\": unknown category \"cow\"", [&] { known.read(Rows{1}); });
  const CsvFile cut = file_of(good);
  spill(path, "a,b\n1,2\n");
  expect_error(ErrorKind::format, path, [&] { cut.read(Rows{1}); });
}

TEST(CsvFile, AnOpenQuoteDoesNotTakeTheMemory) {
  std::string text = "a,b\n1,\"2\n";
  text.append(40 << 20, 'x');
  const std::string name = "t.csv";
  std::size_t at = 0, most = 0;
  csv::RecordReader records(
      [&](char* to, std::size_t n) {
        most = std::max(most, n);
        n = std::min(n, text.size() - at);
        std::copy_n(text.data() + at, n, to);
        at += n;
        return n;
      },
      name, 16);
  csv::Record record;
  ASSERT_TRUE(records.next(record));
  EXPECT_EQ(record.text, "a,b\n");
  expect_error(ErrorKind::format, "t.csv: line 2: a record of more than 16 MiB", [&] { records.next(record); });
  EXPECT_LE(most, csv::RecordReader::kLongest);
}

}  // namespace
}  // namespace bp::io
