// CSV: RFC 4180, numbers and categories, missing values, messages with line and column, damage.
#include <clocale>
#include <cmath>
#include <filesystem>

#include "bp/datasets.h"
#include "helpers.h"
#include "io/csv_writer.h"

namespace bp::io {
namespace {

Table parse_text(const std::string& text, const CsvOptions& options = {}) {
  return parse_csv(bytes_of(text), "file.csv", options);
}

void bad(const std::string& part, const std::string& text, const CsvOptions& options = {}) {
  expect_error(ErrorKind::format, part, [&] { parse_text(text, options); });
}

TEST(Csv, ReadsNumbersAndCategories) {
  const Table t = parse_text("length,species,weight\r\n1.5, setosa,-2e3\r\n+2,virginica,0\r\n3,setosa, 7 \r\n",
                             {.categorical = {"species"}});
  ASSERT_EQ(t.rows(), 3);
  EXPECT_THAT(t.column("length").values.values<float>(), testing::ElementsAre(1.5f, 2.0f, 3.0f));
  EXPECT_THAT(t.column("weight").values.values<float>(), testing::ElementsAre(-2000.0f, 0.0f, 7.0f));
  EXPECT_THAT(t.column("species").values.values<std::int64_t>(), testing::ElementsAre(0, 1, 0));
  EXPECT_THAT(t.column("species").categories, testing::ElementsAre("setosa", "virginica"));
  const Array m = t.matrix(std::vector<std::string>{"weight", "length"});
  EXPECT_EQ(m.shape, Shape({3, 2}));
  EXPECT_THAT(m.values<float>(), testing::ElementsAre(-2000, 1.5, 0, 2, 7, 3));
  expect_error(ErrorKind::value, "did you mean \"length\"", [&] { t.column("lenght"); });
}

TEST(Csv, CategoriesAreSortedOrFixed) {
  const Table t = parse_text("d\n10\n9\n10\n-1\n", {.categorical = {"d"}});
  EXPECT_THAT(t.columns[0].categories, testing::ElementsAre("-1", "9", "10"));
  EXPECT_THAT(t.columns[0].values.values<std::int64_t>(), testing::ElementsAre(2, 1, 2, 0));
  const Table fixed = parse_text("d\nb\nb\n", {.categories = {{"d", {"a", "b"}}}});
  EXPECT_THAT(fixed.columns[0].values.values<std::int64_t>(), testing::ElementsAre(1, 1));
  bad("line 3, column \"d\": unknown category \"bb\"", "d\nb\nbb\n", {.categories = {{"d", {"a", "b"}}}});
}

TEST(Csv, QuotesLineBreaksDelimitersAndMarks) {
  const Table t = parse_text("\xef\xbb\xbf\"a b\";\"say \"\"so\"\"\"\n\n1;\"x;y\nz\"\r2;\"\"\n   \n3;\"\"\"\"",
                             {.delimiter = ';', .categorical = {"say \"so\""}});
  EXPECT_EQ(t.columns[0].name, "a b");
  EXPECT_THAT(t.columns[0].values.values<float>(), testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(t.columns[1].categories, testing::ElementsAre("", "\"", "x;y\nz"));
  EXPECT_EQ(parse_text("a\tb\n1\t2\n", {.delimiter = '\t'}).columns.size(), 2u);
}

TEST(Csv, NumbersDoNotDependOnTheLocale) {
  const std::string old = std::setlocale(LC_NUMERIC, nullptr);
  std::setlocale(LC_NUMERIC, "de_DE.UTF-8");  // where it is installed, a comma would be the decimal point
  EXPECT_EQ(parse_text("a\n0.1\n", {.dtype = f64}).columns[0].values.data<double>()[0], 0.1);
  std::setlocale(LC_NUMERIC, old.c_str());
}

TEST(Csv, TinyNumbersAreZeroHugeOnesAreNot) {
  const Table t = parse_text("a\n1e-400\n-1e-60\n1e-320\n");
  EXPECT_EQ(t.columns[0].values.data<float>()[0], 0.0f);
  EXPECT_TRUE(std::signbit(t.columns[0].values.data<float>()[1]));
  EXPECT_EQ(parse_text("a\n1e-320\n", {.dtype = f64}).columns[0].values.data<double>()[0], 1e-320);
  bad("line 2, column \"a\": 1e39 is too large for f32", "a\n1e39\n");
  bad("too large for f64", "a\n-1e999\n", {.dtype = f64});
}

TEST(Csv, MissingValues) {
  const std::string text = "a,b\n1,2\nNA,3\n4,\n5,6\n";
  bad("line 3, column \"a\": the value is missing (\"NA\")", text);
  const Table nan = parse_text(text, {.missing = Missing::nan});
  EXPECT_TRUE(std::isnan(nan.columns[0].values.data<float>()[1]));
  EXPECT_TRUE(std::isnan(nan.columns[1].values.data<float>()[2]));
  const Table dropped = parse_text(text, {.missing = Missing::drop_row});
  EXPECT_THAT(dropped.columns[0].values.values<float>(), testing::ElementsAre(1, 5));
  const Table selected = parse_text(text, {.columns = {"b"}, .missing = Missing::drop_row});
  EXPECT_THAT(selected.columns[0].values.values<float>(), testing::ElementsAre(2, 3, 6));
  bad("column \"a\": the value is missing", "a,b\n?,1\n", {.categorical = {"a"}, .missing = Missing::nan});
  bad("no rows follow the header (1 with missing values", "a\nNA\n", {.missing = Missing::drop_row});
}

TEST(Csv, NonFiniteLiterals) {
  for (const std::string v : {"nan", "NaN", "inf", "-Infinity", "nan(1)"}) {
    bad("line 2, column \"a\": " + v + " is not a finite number", "a\n" + v + "\n");
    EXPECT_FALSE(
        std::isfinite(parse_text("a\n" + v + "\n", {.allow_non_finite = true}).columns[0].values.data<float>()[0]));
  }
}

TEST(Csv, SaysWhatIsWrong) {
  bad("file is empty", "");
  bad("file is empty", "\n\n  \n");
  bad("no rows", "a,b\n");
  bad("twice", "a,b,a\n1,2,3\n");
  bad("column 1 has no name", ",b\n1,2\n");
  bad("line 3 has 3 fields, the header has 2", "a,b\n1,2\n1,2,3\n");
  bad("line 5 has 1 fields", "a,b\n1,\"2\"\n\n3,4\n5\n");
  bad("line 2, column \"b\": \"x1\" is not a number", "a,b\n1,x1\n");
  for (const std::string v : {"1.5.2", "0x10", "1e", "--1", "+-1", "1 2", "1,"}) bad("", "a\n" + v + "\n");
  bad("line 3, field 2: a quoted field is not closed", "a,b\n1,2\n3,\"4\n5,6\n");
  bad("text behind a closing quote", "a\n\"1\"2\n");
  bad("a quote inside a field", "a\n1\"\n");
  bad("zero byte", std::string("a\n1\0\n", 5));
  bad("", std::string("\xff\xfe"
                      "a\0\n\0",
                      6));
  expect_error(ErrorKind::value, "did you mean \"weight\"",
               [] { parse_text("weight\n1\n", {.categorical = {"wieght"}}); });
  expect_error(ErrorKind::value, "no column \"c\"", [] { parse_text("a,b\n1,2\n", {.columns = {"c"}}); });
  expect_error(ErrorKind::value, "delimiter", [] { parse_text("a\n1\n", {.delimiter = '"'}); });
  expect_error(ErrorKind::dtype, "f32 or f64", [] { parse_text("a\n1\n", {.dtype = i32}); });
}

TEST(Csv, RoundTrips) {
  TempDir dir;
  Rng rng(Key(11));
  const std::string alphabet = "ab,;\"\n\r \t.1";
  for (int round = 0; round < 100; ++round) {
    const auto rows = static_cast<std::int64_t>(1 + rng.below(6));
    const DType t = round % 2 == 0 ? f32 : f64;
    Table table;
    table.columns.push_back({"x,\" y", random_array(t, {rows}, rng), {}});
    std::vector<std::string> names = {"", "NA"};
    while (names.size() < 5) {
      std::string s;
      for (auto n = rng.below(6); n > 0; --n) s += alphabet[rng.below(alphabet.size())];
      if (std::find(names.begin(), names.end(), s) == names.end()) names.push_back(s);
    }
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < rows; ++i) ids.push_back(static_cast<std::int64_t>(rng.below(names.size())));
    table.columns.push_back({" c ", Array::from(ids, {rows}), names});
    const char delimiter = round % 3 == 0 ? ';' : ',';
    write_csv(dir / "t", table, delimiter);
    const Table back = read_csv(
        dir / "t", {.delimiter = delimiter, .dtype = t, .categories = {{" c ", names}}, .allow_non_finite = true});
    ASSERT_EQ(back.columns.size(), 2u);
    EXPECT_TRUE(same_bits(back.columns[1].values, table.columns[1].values)) << slurp(dir / "t");
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto value = [&](const Table& of) { return convert(of.columns[0].values, f64).data<double>()[i]; };
      EXPECT_TRUE(value(back) == value(table) || (std::isnan(value(back)) && std::isnan(value(table))));
    }
  }
}

TEST(Csv, TablesAreWrittenBelowEachOther) {
  TempDir dir;
  const auto table = [](std::vector<std::int64_t> ids, const char* name = "b") {
    const Array values = Array::from(ids, {static_cast<std::int64_t>(ids.size())});
    Table t;
    t.columns = {Column{"a", values, {}}, Column{name, values, {"x", "y,z"}}};
    return t;
  };
  {
    CsvWriter lost(dir / "t");
    lost.append(table({0}));
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "t"));
  CsvWriter out(dir / "t");
  for (const Table& part : {table({0, 1}), table({}), table({1})}) out.append(part);
  EXPECT_THROW(out.append(table({0}, "c")), Error);
  EXPECT_THROW(out.append(Table{}), Error);
  out.commit();
  EXPECT_EQ(slurp(dir / "t"), "a,b\n0,x\n1,\"y,z\"\n1,\"y,z\"\n");
}

TEST(Csv, SurvivesDamage) {
  const std::string valid = "a,\"b \"\"\",c\r\n1,x,-2.5e-3\r\n3,\"y,\nz\",4\r\n";
  EXPECT_GT(damage(valid, [](Bytes b) { parse_csv(b, "damaged", {.columns = {}}); }), 100);
  damage(valid, [](Bytes b) {
    try {
      parse_csv(b, "damaged", {.categorical = {"b \""}, .missing = Missing::drop_row});
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::value) throw;  // the column to be categorical may be gone
    }
  });
}

TEST(LoadCsv, MakesADataset) {
  TempDir dir;
  spill(dir / "iris.csv", "a,kind,b\n1,x,2\n3,y,4\n5,x,6\n");
  const auto d = data::load_csv(dir / "iris.csv", "kind", {.categorical = {"kind"}});
  EXPECT_EQ(d.inputs().shape, Shape({3, 2}));
  EXPECT_THAT(d.targets().values<std::int64_t>(), testing::ElementsAre(0, 1, 0));
  EXPECT_THAT(d.classes(), testing::ElementsAre("x", "y"));
  const auto r = data::load_csv(dir / "iris.csv", "b", {.dtype = f64, .columns = {"a"}});
  EXPECT_EQ(r.targets().shape, Shape({3, 1}));
  EXPECT_EQ(r.inputs().dtype, f64);
  EXPECT_FALSE(data::load_csv(dir / "iris.csv", "", {.columns = {"a", "b"}}).targets().buffer);
  spill(dir / "gap.csv", "a,b\n1,\n");
  expect_error(ErrorKind::value, "row 0", [&] { data::load_csv(dir / "gap.csv", "b", {.missing = Missing::nan}); });
}

}  // namespace
}  // namespace bp::io
