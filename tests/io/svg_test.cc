// Line charts: well-formed, escaped, with ticks, and robust against any numbers.
#include <cmath>
#include <limits>

#include "helpers.h"

namespace bp::io {
namespace {

int occurrences(const std::string& text, const std::string& part) {
  int n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Every tag is closed in order: enough of XML for what the writer produces.
bool well_formed(const std::string& s) {
  std::vector<std::string> open;
  for (std::size_t at = s.find('<'); at != std::string::npos; at = s.find('<', at + 1)) {
    const auto end = s.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = s.substr(at + 1, end - at - 1);
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
  }
  return open.empty();
}

TEST(Svg, DrawsSeriesLegendAndTicks) {
  const std::vector<Series> series = {{"train & <loss>", {1, 2, 3}, {0.9, 0.5, 0.3}},
                                      {"valid", {1, 2, 3}, {1, 0.7, 0.6}}};
  const std::string s = line_chart_svg(series, {.title = "Loss \"curves\"", .x_label = "epoch", .y_label = "loss"});
  EXPECT_TRUE(well_formed(s));
  EXPECT_THAT(s, testing::HasSubstr("train &amp; &lt;loss&gt;"));
  EXPECT_THAT(s, testing::HasSubstr("Loss &quot;curves&quot;"));
  EXPECT_EQ(occurrences(s, "stroke-width=\"2\""), 2);
  for (const char* tick : {">0.4<", ">0.6<", ">0.8<", ">epoch<", ">loss<"}) EXPECT_THAT(s, testing::HasSubstr(tick));
}

TEST(Svg, LogAxisShowsDecades) {
  const std::string s = line_chart_svg(std::vector<Series>{{"a", {1, 2, 3, 4}, {10, 0.1, 0, 1e-3}}}, {.log_y = true});
  for (const char* tick : {">0.001<", ">0.01<", ">0.1<", ">1<", ">10<"}) EXPECT_THAT(s, testing::HasSubstr(tick));
  EXPECT_TRUE(well_formed(s));
}

TEST(Svg, ALongCurveKeepsItsPeaks) {
  Series long_one{"a", {}, {}};
  for (int i = 0; i < 200000; ++i) {
    long_one.x.push_back(i);
    long_one.y.push_back(i == 77777 ? 100.0 : 0.5);
  }
  const std::string s = line_chart_svg(std::vector<Series>{long_one}, {});
  EXPECT_LT(s.size(), 100000u);
  EXPECT_THAT(s, testing::HasSubstr(">100<"));
}

TEST(Svg, TakesAnyNumbers) {
  const double inf = std::numeric_limits<double>::infinity(), big = std::numeric_limits<double>::max();
  const std::vector<std::vector<double>> values = {
      {},          {NAN},         {inf, -inf}, {5}, {0, 0}, {-1, 1}, {big, -big}, {1e-320, 1e-310}, {1e-300, 1e300},
      {3, NAN, 4}, {1, 1 + 1e-15}};
  for (const auto& y : values)
    for (bool log : {false, true}) {
      std::vector<double> x;
      for (std::size_t i = 0; i < y.size(); ++i) x.push_back(static_cast<double>(i));
      for (const Series& series : {Series{"s", x, y}, Series{"s", y, y}}) {
        const std::string s = line_chart_svg(std::vector<Series>{series}, {.log_x = log, .log_y = log});
        EXPECT_TRUE(well_formed(s));
        EXPECT_EQ(s.find("nan"), std::string::npos);
        EXPECT_EQ(s.find("inf"), std::string::npos);
        EXPECT_LT(s.size(), 20000u);
      }
    }
  EXPECT_TRUE(well_formed(line_chart_svg({}, {})));
  expect_error(ErrorKind::value, "2 x and 1 y", [] { line_chart_svg(std::vector<Series>{{"a", {1, 2}, {1}}}, {}); });
  expect_error(ErrorKind::value, "pixels", [] { line_chart_svg({}, {.width = 0}); });
}

}  // namespace
}  // namespace bp::io
