// The state of a run as text: one line of numbers a group, one line an epoch.
#include "train/run_state.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include "base/error.h"

namespace bp::train {

namespace {

constexpr std::string_view kHeader = "bp.run 2";
constexpr double Metrics::*kMetricValues[] = {&Metrics::loss, &Metrics::accuracy, &Metrics::mae,       &Metrics::rmse,
                                              &Metrics::r2,   &Metrics::top_k,    &Metrics::precision, &Metrics::recall,
                                              &Metrics::f1,   &Metrics::auc,      &Metrics::perplexity};

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  Writer& operator()(std::int64_t n) { return put(fmt::format("{}", n)); }
  Writer& operator()(double x) { return put(fmt::format("{}", x)); }
  Writer& operator()(const Metrics& m) {
    (*this)(m.samples);
    for (double Metrics::*x : kMetricValues) (*this)(m.*x);
    return *this;
  }
  ~Writer() { out_ += '\n'; }

 private:
  Writer& put(const std::string& text) {
    if (!first_) out_ += ' ';
    first_ = false;
    out_ += text;
    return *this;
  }
  std::string& out_;
  bool first_ = true;
};

class Reader {
 public:
  Reader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  void header() {
    if (!text_.starts_with(kHeader) || text_.size() == kHeader.size() || text_[kHeader.size()] != '\n')
      fail(ErrorKind::format, "{}: the state of its run is of another version (expected \"{}\")", where_, kHeader);
    text_.remove_prefix(kHeader.size());
  }
  std::int64_t integer() {
    const std::string_view word = next();
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n);
    if (error != std::errc() || end != word.data() + word.size()) broken(word);
    return n;
  }
  // A count, which also bounds what is read after it.
  std::int64_t count() {
    const std::int64_t n = integer();
    if (n < 0 || n > static_cast<std::int64_t>(text_.size())) broken("a count");
    return n;
  }
  double number() {
    const std::string_view word = next();
    double x = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), x);
    if (error != std::errc() || end != word.data() + word.size()) broken(word);
    return x;
  }
  Metrics metrics() {
    Metrics m;
    m.samples = integer();
    for (double Metrics::*x : kMetricValues) m.*x = number();
    return m;
  }

 private:
  std::string_view next() {
    const auto begin = text_.find_first_not_of(" \n");
    if (begin == std::string_view::npos) broken("its end");
    text_.remove_prefix(begin);
    const std::string_view word = text_.substr(0, text_.find_first_of(" \n"));
    text_.remove_prefix(word.size());
    return word;
  }
  [[noreturn]] void broken(std::string_view at) {
    fail(ErrorKind::format, "{}: the state of its run is damaged at \"{}\"", where_, at);
  }
  std::string_view text_;
  const std::string& where_;
};

}  // namespace

std::string encode(const Run& run) {
  std::string out(kHeader);
  out += '\n';
  Writer{out}(run.epoch)(run.batch)(run.step)(run.bad_epochs)(run.rollbacks)(run.averaged);
  Writer{out}(run.best)(run.seconds)(run.waited)(run.elapsed)(run.lr)(run.rate_scale);
  Writer{out}(run.loader.epoch)(run.loader.batch)(run.rows)(run.batch_size);
  {
    Writer line(out);
    for (const double x : run.sums.values()) line(x);
  }
  {
    Writer line(out);
    line(static_cast<std::int64_t>(run.plateau.size()));
    for (const double x : run.plateau) line(x);
  }
  {
    Writer line(out);
    line(static_cast<std::int64_t>(run.best_steps.size()));
    for (const auto& [step, watched] : run.best_steps) line(step)(watched);
  }
  Writer{out}(static_cast<std::int64_t>(run.history.size()));
  for (const Epoch& e : run.history) {
    Writer line(out);
    line(e.epoch)(e.lr)(e.seconds)(e.waited)(e.train)(std::int64_t{e.validation.has_value()});
    if (e.validation) line(*e.validation);
  }
  return out;
}

Run decode(const std::string& text, const std::string& where) {
  Reader in(text, where);
  in.header();
  Run run;
  for (std::int64_t* n : {&run.epoch, &run.batch, &run.step, &run.bad_epochs, &run.rollbacks, &run.averaged})
    *n = in.integer();
  for (double* x : {&run.best, &run.seconds, &run.waited, &run.elapsed, &run.lr, &run.rate_scale}) *x = in.number();
  for (std::int64_t* n : {&run.loader.epoch, &run.loader.batch, &run.rows, &run.batch_size}) *n = in.integer();
  std::array<double, Sums::kCount> sums{};
  for (double& x : sums) x = in.number();
  run.sums = Sums::of(sums);
  run.plateau.resize(static_cast<std::size_t>(in.count()));
  for (double& x : run.plateau) x = in.number();
  run.best_steps.resize(static_cast<std::size_t>(in.count()));
  for (auto& [step, watched] : run.best_steps) {
    step = in.integer();
    watched = in.number();
  }
  const std::int64_t epochs = in.count();
  for (std::int64_t i = 0; i < epochs; ++i) {
    Epoch e;
    e.epoch = in.integer();
    e.lr = in.number();
    e.seconds = in.number();
    e.waited = in.number();
    e.train = in.metrics();
    if (in.integer() != 0) e.validation = in.metrics();
    run.history.push_back(e);
  }
  return run;
}

}  // namespace bp::train
