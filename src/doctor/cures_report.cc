// What `bp cures` shows and writes: tables for a terminal, the page docs/cures.md, a chart a trouble.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "doctor/cures.h"

namespace bp::doctor {

namespace {
std::string number(double v, int digits) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  if (digits == 0) return fmt::format("{:.0f}", v);
  const double size = std::abs(v);
  if (size >= 1e6 || (size < 1e-3 && size > 0)) return fmt::format("{:.{}e}", v, digits - 1);
  const int leading = size > 0 ? static_cast<int>(std::floor(std::log10(size))) : 0;
  return fmt::format("{:.{}f}", v, std::max(0, digits - 1 - leading));
}

// Median (lowest to highest) over the seeds; NaN counts as highest.
std::string over_seeds(const std::vector<Outcome>& outcomes, std::size_t column, int digits) {
  std::vector<double> v;
  for (const Outcome& o : outcomes) v.push_back(o.figures[column]);
  std::sort(v.begin(), v.end(), [](double a, double b) { return std::isnan(b) ? !std::isnan(a) : a < b; });
  const std::string middle = number(v[v.size() / 2], digits), low = number(v.front(), digits),
                    high = number(v.back(), digits);
  return low == high ? middle : fmt::format("{} ({} to {})", middle, low, high);
}

// "fails", or "fails 2, between 1" where the seeds differ.
std::string verdicts(const Cure& cure, const std::vector<Outcome>& outcomes) {
  std::string out;
  for (const Verdict v : {Verdict::fails, Verdict::between, Verdict::mended}) {
    const auto n = std::count_if(outcomes.begin(), outcomes.end(), [&](const auto& o) { return judge(cure, o) == v; });
    if (n == static_cast<std::ptrdiff_t>(outcomes.size())) return name_of(v);
    if (n > 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name_of(v), n);
  }
  return out;
}

using Rows = std::vector<std::vector<std::string>>;
Rows rows_of(const Measured& m) {
  Rows rows(1, {"setup"});
  for (const Column& c : m.cure.columns) rows[0].push_back(c.name);
  rows[0].emplace_back("verdict");
  for (std::size_t i = 0; i < m.outcomes.size(); ++i) {
    std::vector<std::string> row{m.cure.setups[i].name};
    for (std::size_t c = 0; c < m.cure.columns.size(); ++c)
      row.push_back(over_seeds(m.outcomes[i], c, m.cure.columns[c].digits));
    row.push_back(verdicts(m.cure, m.outcomes[i]));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string rule_of(const Cure& cure) {
  std::string fails, mended;
  for (const Bound& b : cure.bounds) {
    const bool higher = b.mended > b.fails;
    const Column& c = cure.columns[b.column];
    fails += fmt::format("{}{} {} {} or NaN", fails.empty() ? "" : ", or ", c.name, higher ? "at most" : "at least",
                         number(b.fails, c.digits));
    mended += fmt::format("{}{} {} {}", mended.empty() ? "" : ", and ", c.name, higher ? "at least" : "at most",
                          number(b.mended, c.digits));
  }
  return fmt::format("Fails: {}. Mended: {}.", fails, mended);
}

std::string markdown_table(const Rows& rows) {
  std::string out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out += fmt::format("| {} |\n", fmt::join(rows[i], " | "));
    if (i > 0) continue;
    out += "|---|";
    for (std::size_t c = 1; c < rows[i].size(); ++c) out += "---|";
    out += '\n';
  }
  return out;
}

std::string chart_name(const Cure& cure) { return "cures_" + cure.name + ".svg"; }

std::string section(const Measured& m) {
  const Cure& c = m.cure;
  return fmt::format("## {}\n\n`bp cures --only {}`\n\n{}\n\n**Cure.** {}\n\n**Here.** {} {}\n\n{}\n![{}]({})\n",
                     c.title, c.name, c.trouble, c.remedy, c.setting, rule_of(c), markdown_table(rows_of(m)),
                     c.chart.title, chart_name(c));
}
}  // namespace

std::string table_text(const Measured& m) {
  const Rows rows = rows_of(m);
  std::vector<std::size_t> width(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  std::string out = fmt::format("{} ({:.1f} s)\n", m.cure.title, m.seconds);
  for (const auto& row : rows) {
    std::string line = " ";
    for (std::size_t c = 0; c < row.size(); ++c) line += fmt::format(" {:<{}} ", row[c], width[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out + "  " + rule_of(m.cure) + '\n';
}

std::string chart_svg(const Measured& m) {
  std::vector<io::Series> series;
  for (std::size_t i = 0; i < m.outcomes.size(); ++i)
    series.push_back({m.cure.setups[i].name, m.outcomes[i][0].x, m.outcomes[i][0].y});
  return io::line_chart_svg(series, m.cure.chart);
}

std::string page(std::span<const Measured> all, int seeds) {
  std::string out = fmt::format(
      "# Troubles and their cures\n\nWritten by `bp cures --out docs`: that run measured every figure. For each "
      "trouble "
      "of training there is a setup that has it,\nand others that differ from it in the cure, with {} seed{} each. "
      "Figures are the median over the seeds (lowest to highest);\nplots show the first seed. All run on one thread: "
      "on "
      "one kind of processor only the times differ from run to run. The\nexperiments are `src/doctor/`; "
      "`tests/cures` runs them in a smaller form.\n\n",
      seeds, seeds == 1 ? "" : "s");
  for (const Measured& m : all) out += section(m) + '\n';
  out.pop_back();
  return out;
}

void write_page(const std::string& folder, std::span<const Measured> all, int seeds) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorKind::io, "cures: the folder {} cannot be made: {}", folder, error.message());
  for (const Measured& m : all) io::write_file(folder + "/" + chart_name(m.cure), chart_svg(m));
  io::write_file(folder + "/cures.md", page(all, seeds));
}

}  // namespace bp::doctor
