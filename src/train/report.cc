// The page about a run. All text that comes from users is escaped; styles and pictures are inside.
#include "train/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "bp/io.h"
#include "io/image.h"
#include "train/checkpoints.h"
#include "train/experiment.h"
#include "train/pictures.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMatrixClasses = 25, kListedClasses = 60;
constexpr std::size_t kValues = 16, kSymbols = 300;

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1f2328;--muted:#59636e;--grid:#e7eaee;--accent:#2f6fde;
--good:43,154,102;--bad:209,59,74}
@media(prefers-color-scheme:dark){:root{--page:#0f1216;--card:#181c22;--ink:#e8ebef;--muted:#9aa4b0;--grid:#2b323b;
--accent:#78a6f5}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",Helvetica,Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 16px 60px}h1{font-size:26px;margin:0;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 12px}p{color:var(--muted);margin:4px 0 12px;overflow-wrap:anywhere}
section>.grid,.cards{display:grid;gap:14px}.grid{grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.cards{grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr));margin-top:18px}
.card{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:12px 14px;min-width:0}
.card b{display:block;font-size:21px;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}.card span{color:var(--muted);font-size:13px}
.card svg{width:100%;height:auto;display:block}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}th{font-weight:600;color:var(--muted)}
td,th{padding:5px 9px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
td:first-child,th:first-child{text-align:left}.matrix td{text-align:center;border:1px solid var(--card);min-width:40px}
.matrix thead th{text-align:center}.examples{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,160px),1fr))}
.examples.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr))}
.examples img{width:100%;image-rendering:pixelated;border-radius:6px;display:block;margin-bottom:6px;background:#000}
.status{font-size:13px;padding:2px 10px;border-radius:99px;border:1px solid var(--accent);color:var(--accent);
vertical-align:middle;font-weight:500;white-space:nowrap}.status.bad{border-color:rgb(var(--bad));color:rgb(var(--bad))}
pre,.text{overflow-x:auto;font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;margin:0}.text{white-space:pre-wrap;overflow-wrap:anywhere}
.card svg.share{width:80px;height:9px;display:inline-block;fill:var(--accent);background:var(--grid);border-radius:3px}
.card svg.bars{width:96px;height:22px;display:inline-block;fill:var(--accent);vertical-align:middle})";

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c == '\n' || c == '\t' || static_cast<unsigned char>(c) >= 0x20 ? c : '?';
    }
  }
  return out;
}

std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string card(const std::string& value, const std::string& name) {
  return fmt::format("<div class=\"card\"><b>{}</b><span>{}</span></div>\n", escape(value), escape(name));
}

std::string time_text(double seconds) {
  const auto s = std::lround(std::clamp(seconds, 0.0, 1e9));
  return s < 60 ? fmt::format("{:.3g} s", seconds) : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

bool went_wrong(const RunRecord& r) { return r.status == "diverged" || r.status == "failed"; }

std::string header(const RunRecord& r) {
  const bool wrong = went_wrong(r);
  std::string out = fmt::format("<h1>{} <span class=\"status{}\">{}</span></h1>\n<p>{}, begun {}{}</p>\n",
                                escape(r.name), wrong ? " bad" : "", escape(r.status), escape(r.folder), utc(r.started),
                                r.reason.empty() || wrong ? "" : "; ended by: " + escape(r.reason));
  if (wrong) out += "<div class=\"card\"><pre class=\"text\">" + escape(r.reason) + "</pre></div>\n";
  out += "<div class=\"cards\">\n";
  for (const auto& [name, m] : r.metrics) {
    const bool test = name.starts_with("test_");
    if (!test && name != "validation_loss" && name != "validation_accuracy" && name != "train_loss") continue;
    std::string label = name;
    std::replace(label.begin(), label.end(), '_', ' ');
    out += card(fmt::format("{:.4g}", test ? m.last : m.best),
                test ? label : fmt::format("{}, best, epoch {}", label, m.best_epoch));
  }
  out += card(fmt::format("{} of {}", r.epochs, r.planned_epochs), "epochs");
  out += card(std::to_string(r.parameters), "parameters");
  return out + card(time_text(r.seconds), "training") + "</div>\n";
}

// The columns of history.csv that belong together: training and validation of one metric in a chart, the rest alone.
std::string curves(const std::string& run) {
  const std::optional<io::Table> history = read_history(run);
  if (!history) return "<p>No epoch was finished.</p>\n";
  const io::Table& table = *history;
  const auto series = [&](const std::string& name, const io::Column& column) {
    const auto x = table.column("epoch").values.values<double>(), y = column.values.values<double>();
    return io::Series{name, {x.begin(), x.end()}, {y.begin(), y.end()}};
  };
  std::string out = "<div class=\"grid\">\n";
  for (const io::Column& column : table.columns) {
    if (column.name == "epoch" || column.name.starts_with("validation_")) continue;
    const bool metric = column.name.starts_with("train_");
    std::string title = metric ? column.name.substr(6) : column.name;
    std::vector<io::Series> all{series(metric ? "training" : title, column)};
    for (const io::Column& other : table.columns)
      if (metric && other.name == "validation_" + title) all.push_back(series("validation", other));
    std::replace(title.begin(), title.end(), '_', ' ');
    out += "<div class=\"card\">" +
           io::line_chart_svg(all, {.title = title, .x_label = "epoch", .width = 560, .height = 300, .themed = true}) +
           "</div>\n";
  }
  return out + "</div>\n";
}

std::string class_name(const Config& c, std::int64_t k) {
  if (c.data.vocabulary) {
    const std::int64_t id[] = {k};
    return "\"" + c.data.vocabulary->decode(id) + "\"";
  }
  const auto i = static_cast<std::size_t>(k);
  return i < c.data.classes.size() ? c.data.classes[i] : std::to_string(k);
}

std::string matrix(const Config& c, const metrics::ConfusionMatrix& m) {
  std::string out = "<div class=\"card scroll\"><table class=\"matrix\"><thead><tr><th>target \\ output</th>";
  for (std::int64_t k = 0; k < m.classes(); ++k) out += "<th>" + escape(class_name(c, k)) + "</th>";
  out += "</tr></thead>\n";
  const metrics::ClassCounts counts = m.counts();
  for (std::int64_t t = 0; t < m.classes(); ++t) {
    const auto sum = static_cast<double>(std::max<std::int64_t>(1, counts.of(t).support));
    out += "<tr><th>" + escape(class_name(c, t)) + "</th>";
    for (std::int64_t k = 0; k < m.classes(); ++k)
      out +=
          fmt::format("<td style=\"background:rgba(var(--{}),{:.2f})\">{}</td>", k == t ? "good" : "bad",
                      m.at(t, k) == 0 ? 0.0 : std::min(0.85, 0.08 + static_cast<double>(m.at(t, k)) / sum), m.at(t, k));
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string score_row(const std::string& name, const metrics::ClassScores& s) {
  return fmt::format("<tr><td>{}</td><td>{:.3f}</td><td>{:.3f}</td><td>{:.3f}</td><td>{}</td></tr>\n", escape(name),
                     s.precision, s.recall, s.f1, s.support);
}

// A row a class; of several binary labels a row a label, of its ones.
std::string confusion(const Config& c, const Findings& f) {
  const bool labels = f.confusion.size() > 1;
  const metrics::ConfusionMatrix& first = f.confusion[0];
  std::string out = labels || first.classes() > kMatrixClasses ? "" : matrix(c, first);
  out += fmt::format(
      "<div class=\"card scroll\" style=\"margin-top:14px\"><table><tr><th>{}</th><th>precision</th><th>recall</th>"
      "<th>F1</th><th>{}</th></tr>\n",
      labels ? "label" : "class", labels ? "ones" : "samples");
  for (std::int64_t k = 0; labels && k < std::min(std::ssize(f.confusion), kListedClasses); ++k)
    out += score_row(class_name(c, k), f.confusion[static_cast<std::size_t>(k)].counts().of(1));
  const metrics::ClassCounts counts = first.counts();
  for (std::int64_t k = 0; !labels && k < std::min(first.classes(), kListedClasses); ++k)
    out += score_row(class_name(c, k), counts.of(k));
  return out + "</table></div>\n";
}

std::string shown_row(const Config& c, const data::Batch& one, bool& wide) {
  if (const std::optional<Array> picture = picture_of(c, one.x, 0))
    return fmt::format("<img alt=\"\" src=\"data:image/png;base64,{}\">", base64(io::encode_png(*picture, "picture")));
  wide = true;
  if (c.data.vocabulary) {
    const Array ids = convert(one.x, DType::i64);
    const auto n = std::min(kSymbols, static_cast<std::size_t>(ids.numel()));
    return "<div class=\"text\">" + escape(c.data.vocabulary->decode({ids.data<std::int64_t>(), n})) + "</div>";
  }
  const Array values = convert(one.x, DType::f64);
  std::string out;
  const auto n = static_cast<std::size_t>(values.numel());
  for (std::size_t i = 0; i < std::min(kValues, n); ++i)
    out += (i == 0 ? "" : ", ") + fmt::format("{:.4g}", values.data<double>()[i]);
  return "<div class=\"text\">" + out + (n > kValues ? ", ..." : "") + "</div>";
}

std::string worst(const Config& c, const Findings& f, const data::Source& set) {
  std::string items;
  bool wide = false;
  for (const Mistake& m : f.worst) {
    const data::Batch one = set.fetch({&m.row, 1}, Key{});
    items += "<div class=\"card\">" + shown_row(c, one, wide);
    if (m.target >= 0)
      items += fmt::format("<b style=\"font-size:15px\">{} <span>for</span> {}</b>", escape(class_name(c, m.output)),
                           escape(class_name(c, m.target)));
    items += fmt::format("<span>row {}, loss {:.4g}</span></div>\n", m.row, m.loss);
  }
  return fmt::format("<div class=\"examples{}\">\n{}</div>\n", wide ? " wide" : "", items);
}

std::string bars(const std::vector<double>& histogram) {
  const double top = std::max(1.0, *std::max_element(histogram.begin(), histogram.end()));
  std::string path;
  for (std::size_t i = 0; i < histogram.size(); ++i)
    path += fmt::format("M{} 22h3.4v-{:.1f}h-3.4z", 4 * i, 22 * histogram[i] / top);
  return fmt::format("<svg class=\"bars\" viewBox=\"0 0 {} 22\" preserveAspectRatio=\"none\"><path d=\"{}\"/></svg>",
                     4 * histogram.size(), path);
}

// A horizontal bar in a cell.
std::string share_cell(double share) {
  return fmt::format(
      "<td>{:.1f}% <svg class=\"share\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\"><path "
      "d=\"M0 0h{:.1f}v10h-{:.1f}z\"/></svg></td>",
      100 * share, 100 * share, 100 * share);
}

std::string activations(const Findings& f) {
  if (f.activations.empty()) return "";
  std::string out =
      "<p>Saturated values pass on less than 2% of the gradient: zeros of a ReLU, a tanh beyond ±0.99. A dead unit is "
      "saturated for every row of a batch.</p>\n<div class=\"card scroll\"><table><tr><th>layer</th><th>kind</th>"
      "<th>saturated</th><th>dead units</th></tr>\n";
  for (const ActivationFigures& a : f.activations)
    out += fmt::format("<tr><td>{}</td><td>{}</td>{}<td>{} of {}</td></tr>\n", escape(a.path), escape(a.kind),
                       share_cell(a.saturated), a.dead, a.units);
  return out + "</table></div>\n";
}

std::string parameters(const Findings& f) {
  if (f.parameters.empty()) return "";
  std::string out =
      "<div class=\"card scroll\"><table><tr><th>parameter</th><th>shape</th><th>values</th><th>mean</th>"
      "<th>deviation</th><th>norm</th><th>largest</th><th>zeros</th><th>gradient norm</th></tr>\n";
  for (const ParameterFigures& p : f.parameters)
    out += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3g}</td><td>{:.3g}</td><td>{:.3g}</td><td>{:.3g}</td>"
        "<td>{:.1f}%</td><td>{}</td></tr>\n",
        escape(p.name), p.shape.str(), bars(p.histogram), p.mean, p.stddev, p.norm, p.largest, 100 * p.zeros,
        std::isnan(p.gradient_norm) ? "–" : fmt::format("{:.3g}", p.gradient_norm));
  return out + "</table></div>\n";
}

std::string timing(const RunRecord& r) {
  const double wall = r.updated - r.started;
  std::string out = "<div class=\"cards\">\n" + card(time_text(r.seconds), "training steps");
  if (r.steps > 0) out += card(fmt::format("{:.3g} ms", 1e3 * r.seconds / static_cast<double>(r.steps)), "a step");
  if (r.epochs > 0) out += card(time_text(r.seconds / static_cast<double>(r.epochs)), "an epoch");
  out += card(time_text(std::max(0.0, wall - r.seconds - r.paused)), "compiling, validation, files");
  if (r.resumed > 0)
    out += card(time_text(r.paused),
                fmt::format("paused, resumed {}", r.resumed == 1 ? "once" : fmt::format("{} times", r.resumed)));
  return out + card(std::to_string(r.steps), "steps") + "</div>\n";
}

std::string time_rows(const std::string& title, const std::vector<ProfileSum>& sums, double whole) {
  constexpr std::size_t kRows = 40;
  std::string out = fmt::format(
      "<div class=\"card scroll\" style=\"margin-top:14px\"><table><tr><th>{}</th><th>time</th><th>share</th>"
      "<th>GFLOP/s</th><th>of the machine's limit</th></tr>\n",
      title);
  for (std::size_t i = 0; i < std::min(kRows, sums.size()); ++i) {
    const ProfileSum& s = sums[i];
    const double seconds = std::max(s.seconds, 1e-12);
    out += fmt::format("<tr><td>{}</td><td>{:.4g} ms</td>{}<td>{:.3g}</td><td>{:.0f}%</td></tr>\n",
                       escape(s.name.empty() ? "outside of layers" : s.name), 1e3 * s.seconds,
                       share_cell(s.seconds / whole), s.flops / seconds / 1e9, 100 * s.limit_seconds / seconds);
  }
  return out + "</table></div>\n";
}

std::string step_times(const Findings& f) {
  if (!f.step || f.step->steps.empty()) return "";
  const double whole = std::max(f.step->seconds(), 1e-12);
  return fmt::format("<p style=\"margin-top:14px\">A training step takes {:.4g} ms, the median of {}:</p>\n",
                     1e3 * whole, f.step->runs) +
         time_rows("layer", f.step->by_layer(), whole) + time_rows("pass", f.step->by_pass(), whole);
}

std::string pairs(const std::map<std::string, std::string>& values) {
  std::string out = "<div class=\"cards\">\n";
  for (const auto& [name, value] : values) out += card(value, name);
  return out + "</div>\n";
}

std::string section(const std::string& title, const std::string& body) {
  return body.empty() ? "" : "<section><h2>" + title + "</h2>\n" + body + "</section>\n";
}

}  // namespace

std::string report_html(const Config& c, const std::string& run, const RunRecord& r,
                        const std::optional<Findings>& findings, const data::Source* set) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<title>{}</title>\n<style>{}</style></head>\n<body><main>\n",
      escape(r.name), kStyle);
  out += header(r) + section("Curves", curves(run));
  const Findings f = findings.value_or(Findings{});
  const std::string about = fmt::format("<p>{} of {} rows of the {} data.</p>\n", f.rows, f.of, f.split);
  if (!f.confusion.empty()) out += section("Confusion", about + confusion(c, f));
  if (!f.worst.empty() && set != nullptr) out += section("Worst examples", about + worst(c, f, *set));
  out += section("Activations", activations(f)) + section("Layers", parameters(f));
  out += section("Time", timing(r) + step_times(f)) + section("Environment", pairs(r.environment));
  out += section("Configuration", "<div class=\"card\"><pre>" + escape(to_toml(c.root)) + "</pre></div>\n");
  return out + "</main></body></html>\n";
}

Profile profile_on(Trainer& trainer, const Config& c, const data::Source& set) {
  constexpr int kRuns = 5;
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(c.batch, set.size())));
  std::iota(rows.begin(), rows.end(), 0);
  const data::Batch batch = set.fetch(rows, Key{});
  return trainer.profile(to_tensor(batch.x), to_tensor(batch.y), kRuns);
}

std::string report_run(const std::string& run) {
  Config config = read_run(run);
  const bool held_out = config.data.validation || config.data.validation_fraction > 0;
  const Split split = config.data.test ? Split::test : held_out ? Split::validation : Split::train;
  const char* name = config.data.test ? "test" : held_out ? "validation" : "training";
  const SourcePtr set = load_split(config, split);
  std::optional<Findings> findings;
  if (fs::exists(fs::path(run) / "model.safetensors") || has_checkpoints((fs::path(run) / "checkpoints").string())) {
    nn::Sequential model = load_model(config, run);
    findings = examine(config, model, *set, name);
    const std::unique_ptr<optim::Optimizer> optimizer = config.optimizer(nn::parameters(model));
    Trainer trainer(model, config.loss, *optimizer, config.train);
    findings->step = profile_on(trainer, config, *set);
  }
  const std::string file = (fs::path(run) / "report.html").string();
  io::write_file(file, report_html(config, run, read_run_record(run), findings, set.get()));
  return file;
}

}  // namespace bp::train
