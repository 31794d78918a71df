// Line charts as SVG text: loss curves of a run. Axes with round ticks, linear or logarithmic; a legend; no scripts.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "io/file.h"

namespace bp::io {

namespace {
constexpr std::array kColours = {"#2f6fde", "#e0662f", "#2b9a66", "#b5409c",
                                 "#8a6d1f", "#4a5568", "#d13b4a", "#0f8f9e"};
constexpr const char* kInk = "#1f2328";
constexpr const char* kMuted = "#59636e";
constexpr const char* kGrid = "#e7eaee";

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool empty() const { return low > high; }
  void add(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
};

// Within what the arithmetic of axes can place.
bool drawable(double v, bool log) { return std::abs(v) <= 1e250 && (!log || v >= 1e-250); }

std::string escaped_markup(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
  }
  return out;
}

std::string number_text(double v) {
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size >= 1e6 || size < 1e-4) return fmt::format("{:.3g}", v);
  return fmt::format("{:.6g}", v);
}

// One axis: data to pixels. `from` and `to` are the pixels of the two ends.
class Axis {
 public:
  Axis(Range data, bool log, double from, double to) : log_(log), from_(from), to_(to) {
    if (data.empty()) data = log ? Range{1, 10} : Range{0, 1};
    low_ = place(data.low);
    high_ = place(data.high);
    if (high_ - low_ <=
        std::max(1e-9 * std::max(std::abs(low_), std::abs(high_)), 1e-290)) {  // a constant gets room on both sides
      const double room = log ? 0.5 : std::max(std::abs(low_) * 0.1, 1e-6);
      low_ -= room;
      high_ += room;
    }
  }

  // Room beyond the data, so that a curve does not lie on the frame.
  void widen(double part) {
    const double room = (high_ - low_) * part;
    const bool at_zero = !log_ && low_ == 0;
    if (!at_zero) low_ -= room;
    high_ += room;
  }

  bool shows(double v) const { return drawable(v, log_); }
  double pixel(double v) const { return from_ + (place(v) - low_) / (high_ - low_) * (to_ - from_); }

  std::vector<double> ticks(int about) const { return log_ ? log_ticks() : linear_ticks(about, low_, high_); }

 private:
  double place(double v) const { return log_ ? std::log10(v) : v; }

  static std::vector<double> linear_ticks(int about, double low, double high) {
    const double raw = (high - low) / about;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double rest = raw / power;
    const double step = power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
    std::vector<double> out;
    for (double k = std::ceil(low / step); k * step <= high && out.size() < 50; ++k) out.push_back(k * step);
    return out;
  }

  // Powers of ten, thinned when there are many; 2 and 5 between when there are few; round numbers within a decade.
  std::vector<double> log_ticks() const {
    const double decades = high_ - low_;
    const int stride = std::max(1, static_cast<int>(std::ceil(decades / 8)));
    std::vector<double> out;
    for (int e = static_cast<int>(std::floor(low_)); e <= static_cast<int>(std::ceil(high_)); ++e) {
      for (double m : {1.0, 2.0, 5.0}) {
        if (m != 1.0 && decades > 3) continue;
        if (m == 1.0 && e % stride != 0) continue;
        const double at = e + std::log10(m);
        if (at >= low_ && at <= high_) out.push_back(std::pow(10.0, e) * m);
      }
    }
    return out.size() >= 3 ? out : linear_ticks(4, std::pow(10.0, low_), std::pow(10.0, high_));
  }

  bool log_;
  double low_ = 0, high_ = 1, from_, to_;
};

struct Frame {
  double left, right, top, bottom;
};

// A long curve keeps, of each run of points that share a column of pixels, the lowest and the highest.
std::vector<std::size_t> thinned(const Series& s, std::size_t columns) {
  std::vector<std::size_t> keep;
  const std::size_t n = s.x.size(), run = std::max<std::size_t>(1, n / columns);
  for (std::size_t start = 0; start < n; start += run) {
    const std::size_t end = std::min(n, start + run);
    if (run <= 4) {
      for (std::size_t i = start; i < end; ++i) keep.push_back(i);
      continue;
    }
    std::size_t low = start, high = start, gap = n;
    for (std::size_t i = start; i < end; ++i) {
      if (!std::isfinite(s.y[i])) gap = i;
      if (!(s.y[i] >= s.y[low])) low = i;
      if (!(s.y[i] <= s.y[high])) high = i;
    }
    std::vector<std::size_t> some = {start, low, high, end - 1};
    if (gap < n) some.push_back(gap);
    std::sort(some.begin(), some.end());
    some.erase(std::unique(some.begin(), some.end()), some.end());
    keep.insert(keep.end(), some.begin(), some.end());
  }
  return keep;
}

std::string curve(const Series& s, const Axis& x, const Axis& y, const char* colour, const Frame& frame) {
  std::string path, dots;
  const auto keep = thinned(s, static_cast<std::size_t>(frame.right - frame.left));
  const auto shown = [&](std::size_t k) { return k < keep.size() && x.shows(s.x[keep[k]]) && y.shows(s.y[keep[k]]); };
  const bool few = keep.size() <= 25;
  bool drawing = false;
  for (std::size_t k = 0; k < keep.size(); ++k) {
    if (!shown(k)) {
      drawing = false;
      continue;
    }
    const double px = x.pixel(s.x[keep[k]]), py = y.pixel(s.y[keep[k]]);
    if (few || (!drawing && !shown(k + 1)))
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", px, py);
    path += fmt::format("{}{:.1f} {:.1f}", drawing ? "L" : "M", px, py);
    drawing = true;
  }
  return fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-linejoin=\"round\" "
      "stroke-linecap=\"round\"/>\n<g fill=\"{}\">{}</g>\n",
      path, colour, colour, dots);
}

std::string axes(const Axis& x, const Axis& y, const Frame& f, const ChartOptions& o) {
  std::string out = fmt::format("<g stroke=\"{}\">", kGrid);
  const auto x_ticks = x.ticks(static_cast<int>(std::max(2.0, (f.right - f.left) / 70)));
  const auto y_ticks = y.ticks(static_cast<int>(std::max(2.0, (f.bottom - f.top) / 55)));
  for (double v : y_ticks) {
    const double at = y.pixel(v);
    out += fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\"/>", f.left, at, f.right);
  }
  out += fmt::format("</g>\n<path d=\"M{0:.1f} {1:.1f}H{2:.1f}\" stroke=\"{3}\"/>\n<g fill=\"{3}\" font-size=\"12\">\n",
                     f.left, f.bottom, f.right, kMuted);
  for (double v : y_ticks)
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", f.left - 8, y.pixel(v) + 4,
                       number_text(v));
  for (double v : x_ticks)
    out += fmt::format(
        "<path d=\"M{0:.1f} {1:.1f}v5\" stroke=\"{2}\"/><text x=\"{0:.1f}\" y=\"{3:.1f}\" "
        "text-anchor=\"middle\">{4}</text>\n",
        x.pixel(v), f.bottom, kMuted, f.bottom + 20, number_text(v));
  const double middle = (f.left + f.right) / 2, height = (f.top + f.bottom) / 2;
  if (!o.x_label.empty())
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", middle, f.bottom + 42,
                       escaped_markup(o.x_label));
  if (!o.y_label.empty())
    out += fmt::format(
        "<text x=\"18\" y=\"{0:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {0:.1f})\">{1}</text>\n", height,
        escaped_markup(o.y_label));
  return out + "</g>\n";
}

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// In a column on the right of the frame.
std::string legend(std::span<const Series> series, const Frame& f) {
  std::string out;
  double y = f.top + 8;
  for (std::size_t i = 0; i < series.size(); ++i, y += 22)
    out += fmt::format(
        "<path d=\"M{0:.1f} {1:.1f}h18\" stroke=\"{2}\" stroke-width=\"3\" stroke-linecap=\"round\"/>"
        "<text x=\"{3:.1f}\" y=\"{4:.1f}\" fill=\"{5}\" font-size=\"13\">{6}</text>\n",
        f.right + 18, y, kColours[i % kColours.size()], f.right + 44, y + 4.5, kInk, escaped_markup(series[i].name));
  return out;
}

// The page's colours in the place of ours; texts hold none of them as attributes, for they are escaped.
std::string themed(std::string svg) {
  const auto replace = [&svg](const std::string& from, const std::string& to) {
    for (std::size_t at = 0; (at = svg.find(from, at)) != std::string::npos; at += to.size())
      svg.replace(at, from.size(), to);
  };
  for (const auto& [colour, name] : {std::pair{kInk, "ink"}, {kMuted, "muted"}, {kGrid, "grid"}})
    replace(fmt::format("=\"{}\"", colour), fmt::format("=\"var(--{})\"", name));
  replace("fill=\"#ffffff\"", "fill=\"none\"");
  return svg;
}

void check(std::span<const Series> series, const ChartOptions& o) {
  if (o.width < 200 || o.height < 150 || o.width > 20000 || o.height > 20000)
    fail(ErrorKind::value, "[line_chart] {} x {} pixels: expected 200 x 150 to 20000 x 20000", o.width, o.height);
  for (const Series& s : series)
    if (s.x.size() != s.y.size())
      fail(ErrorKind::value, "[line_chart] series \"{}\" has {} x and {} y values", s.name, s.x.size(), s.y.size());
}
}  // namespace

std::string line_chart_svg(std::span<const Series> series, const ChartOptions& o) {
  check(series, o);
  Range x_data, y_data;
  std::size_t longest = 0;
  bool any = false;
  for (const Series& s : series) {
    longest = std::max(longest, characters(s.name));
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      if (!drawable(s.x[i], o.log_x) || !drawable(s.y[i], o.log_y)) continue;
      any = true;
      x_data.add(s.x[i]);
      y_data.add(s.y[i]);
    }
  }
  const double legend_width = std::min(o.width * 0.4, 60 + 7.2 * static_cast<double>(longest));
  const Frame f{o.y_label.empty() ? 64.0 : 82.0, o.width - (series.empty() ? 24.0 : legend_width),
                o.title.empty() ? 24.0 : 56.0, o.height - (o.x_label.empty() ? 36.0 : 58.0)};
  Axis x(x_data, o.log_x, f.left, f.right);
  Axis y(y_data, o.log_y, f.bottom, f.top);
  y.widen(0.04);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      o.width, o.height);
  if (!o.title.empty())
    out += fmt::format("<text x=\"{:.1f}\" y=\"32\" fill=\"{}\" font-size=\"17\" font-weight=\"600\">{}</text>\n",
                       f.left, kInk, escaped_markup(o.title));
  out += axes(x, y, f, o);
  for (std::size_t i = 0; i < series.size(); ++i) out += curve(series[i], x, y, kColours[i % kColours.size()], f);
  if (!any)
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" fill=\"{}\" text-anchor=\"middle\">no data</text>\n",
                       (f.left + f.right) / 2, (f.top + f.bottom) / 2, kMuted);
  out += legend(series, f) + "</svg>\n";
  return o.themed ? themed(std::move(out)) : out;
}

void write_line_chart(const std::string& path, std::span<const Series> series, const ChartOptions& options) {
  write_file(path, line_chart_svg(series, options));
}

}  // namespace bp::io
