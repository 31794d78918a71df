// Spaces, proposals, rungs and importance.
#include "train/search.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>

#include "base/error.h"
#include "bp/rng.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using Scale = Dimension::Scale;
using Method = Search::Method;

constexpr std::int64_t kMostTrials = 100'000, kDefaultTrials = 20;
constexpr std::size_t kMostDimensions = 64;

bool whole_numbers(Scale s) { return s == Scale::integer || s == Scale::log_integer; }
bool logarithmic(Scale s) { return s == Scale::log || s == Scale::log_integer; }

constexpr std::pair<const char*, Scale> kScales[] = {
    {"uniform", Scale::uniform}, {"log", Scale::log}, {"integer", Scale::integer}, {"log_integer", Scale::log_integer}};

bool is_range(const Node& n) {
  return n.kind == Node::Kind::table && std::any_of(std::begin(kScales), std::end(kScales), [&](const auto& s) {
           const Node* value = n.find(s.first);
           return value != nullptr && value->kind == Node::Kind::array;
         });
}

[[noreturn]] void wrong_dimension(const Node& n, const std::string& key) {
  fail(ErrorKind::config,
       "{}: tune.space.{}: expected a list of values, or {{ uniform = [LOW, HIGH] }}, log, integer or log_integer in "
       "its place, and points = N on a grid; got {}",
       n.where, key, n.str());
}

void read_ends(Dimension& d, const Node& ends) {
  const auto fits = [&](const Node& x) {
    const bool number = x.kind == Node::Kind::integer || (x.kind == Node::Kind::number && !whole_numbers(d.scale));
    return number && std::isfinite(x.number) && std::abs(x.number) < 1e15 && (!logarithmic(d.scale) || x.number > 0);
  };
  if (ends.items.size() != 2 || !fits(ends.items[0]) || !fits(ends.items[1]) ||
      !(ends.items[0].number < ends.items[1].number))
    fail(ErrorKind::config, "{}: tune.space.{}: expected [LOW, HIGH], two {}{} with LOW < HIGH, got {}", ends.where,
         d.key, whole_numbers(d.scale) ? "integers" : "numbers", logarithmic(d.scale) ? " > 0" : "", ends.str());
  d.low = ends.items[0].number;
  d.high = ends.items[1].number;
}

Dimension read_range(const Node& n, const std::string& key) {
  Dimension d{.key = key};
  int scales = 0;
  for (const auto& [name, value] : n.entries) {
    const auto* scale =
        std::find_if(std::begin(kScales), std::end(kScales), [&word = name](auto& s) { return word == s.first; });
    if (scale != std::end(kScales)) {
      ++scales;
      d.scale = scale->second;
      read_ends(d, value);
    } else if (name == "points" && value.kind == Node::Kind::integer && value.integer >= 2 &&
               value.integer <= kMostTrials) {
      d.points = value.integer;
    } else {
      wrong_dimension(n, key);
    }
  }
  if (scales != 1) wrong_dimension(n, key);
  if (whole_numbers(d.scale)) d.points = std::min(d.points, static_cast<std::int64_t>(d.high - d.low) + 1);
  return d;
}

// A key may be written "optimizer.lr" in quotes or as tables.
void read_dimensions(const Node& n, const std::string& path, std::vector<Dimension>& to) {
  for (const auto& [name, value] : n.entries) {
    const std::string key = path.empty() ? name : path + "." + name;
    if (is_range(value)) {
      to.push_back(read_range(value, key));
    } else if (value.kind == Node::Kind::array && !value.items.empty()) {
      to.push_back({.key = key, .choices = value.items});
    } else if (value.kind == Node::Kind::table && !value.entries.empty()) {
      read_dimensions(value, key, to);
    } else {
      wrong_dimension(value, key);
    }
    if (key == "tune" || key.starts_with("tune.") || key == "name" || to.size() > kMostDimensions)
      fail(ErrorKind::config, "{}: tune.space.{}: {}", value.where, key,
           to.size() > kMostDimensions ? fmt::format("a search takes at most {} keys", kMostDimensions)
                                       : std::string("this key is not one to search over"));
  }
}

std::int64_t grid_size(Section& s, const Search& search) {
  std::int64_t all = 1;
  for (const Dimension& d : search.dimensions) {
    if (d.size() == 0)
      s.wrong("space", fmt::format("a grid needs the number of points of {}: {{ ..., points = 5 }}", d.key));
    all = std::min(all * d.size(), kMostTrials + 1);
  }
  return all;
}

double six_digits(double x) { return std::strtod(fmt::format("{:.6g}", x).c_str(), nullptr); }

// From where a range is even (t in [0, 1]) to its values.
double on_scale(const Dimension& d, double t, double high) {
  return logarithmic(d.scale) ? d.low * std::pow(high / d.low, t) : d.low + t * (high - d.low);
}

Node number_node(const Dimension& d, double x) {
  if (whole_numbers(d.scale)) return Node::of(static_cast<std::int64_t>(std::clamp(x, d.low, d.high)));
  return Node::of(std::clamp(six_digits(x), d.low, d.high));
}

std::int64_t next_prime(std::int64_t p) {
  for (++p;; ++p) {
    bool prime = true;
    for (std::int64_t q = 2; q * q <= p && prime; ++q) prime = p % q != 0;
    if (prime) return p;
  }
}

double radical_inverse(std::int64_t n, std::int64_t base) {
  double value = 0, digit = 1.0 / static_cast<double>(base);
  for (; n > 0; n /= base, digit /= static_cast<double>(base)) value += static_cast<double>(n % base) * digit;
  return value;
}

std::vector<double> coordinates(const Search& s, std::int64_t number) {
  std::vector<double> u(s.dimensions.size());
  const Key key = Key{s.seed}.fold("tune");
  if (s.method != Method::halton) {
    Rng rng(key.fold(static_cast<std::uint64_t>(number)));
    for (double& x : u) x = rng.uniform();
    return u;
  }
  Rng shift(key.fold("shift"));
  std::int64_t base = 1;
  for (double& x : u) {
    base = next_prime(base);
    x = radical_inverse(number + 1, base) + shift.uniform();
    x -= std::floor(x);
  }
  return u;
}

std::vector<Node> grid_point(const Search& s, std::int64_t number) {
  std::vector<Node> values(s.dimensions.size());
  for (std::size_t i = values.size(); i-- > 0;) {
    const std::int64_t n = s.dimensions[i].size();
    values[i] = s.dimensions[i].on_grid(number % n);
    number /= n;
  }
  return values;
}

// The whole value as TOML; Node::str() shortens.
std::string toml_of(const Node& value) {
  Node list, root;
  list.kind = Node::Kind::array;
  list.items.push_back(value);
  root.set("v", std::move(list));
  std::string text = to_toml(root);
  text = text.substr(text.find('[') + 1, text.rfind(']') - text.find('[') - 1);
  while (!text.empty() && (std::isspace(static_cast<unsigned char>(text.back())) != 0 || text.back() == ','))
    text.pop_back();
  return text.substr(std::min(text.size(), text.find_first_not_of(" \n")));
}

// Which of the groups each trial is in, by the values of one dimension.
std::vector<int> groups_of(const Dimension& d, const std::vector<double>& places, int bins) {
  std::vector<int> group(places.size());
  if (d.scale == Scale::choices) {
    for (std::size_t i = 0; i < group.size(); ++i) group[i] = static_cast<int>(places[i]);
    return group;
  }
  std::vector<double> sorted = places;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < group.size(); ++i) {  // equal values share a bin
    const auto below = std::lower_bound(sorted.begin(), sorted.end(), places[i]) - sorted.begin();
    group[i] = static_cast<int>(below * bins / static_cast<std::ptrdiff_t>(sorted.size()));
  }
  return group;
}

// Of ranks 0, 1, ..., n - 1 in groups.
double epsilon_squared(const std::vector<int>& group) {
  struct Sums {
    double count = 0, sum = 0;
  };
  std::map<int, Sums> groups;
  const auto n = static_cast<double>(group.size());
  double total = 0, between = 0;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const double centred = static_cast<double>(i) - (n - 1) / 2;
    total += centred * centred;
    groups[group[i]].count += 1;
    groups[group[i]].sum += centred;
  }
  for (const auto& [_, g] : groups) between += g.sum * g.sum / g.count;
  const auto k = static_cast<double>(groups.size());
  if (k < 2 || k >= n) return 0;
  return std::clamp(1 - (n - 1) / (n - k) * (1 - between / total), 0.0, 1.0);
}

std::string xml_text(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

}  // namespace

std::int64_t Dimension::size() const {
  return scale == Scale::choices ? static_cast<std::int64_t>(choices.size()) : points;
}

Node Dimension::at(double u) const {
  if (scale == Scale::choices) return choices[static_cast<std::size_t>(u * static_cast<double>(choices.size()))];
  return number_node(*this, whole_numbers(scale) ? std::floor(on_scale(*this, u, high + 1)) : on_scale(*this, u, high));
}

Node Dimension::on_grid(std::int64_t i) const {
  if (scale == Scale::choices) return choices[static_cast<std::size_t>(i)];
  const double x = size() < 2 ? low : on_scale(*this, static_cast<double>(i) / static_cast<double>(size() - 1), high);
  return number_node(*this, whole_numbers(scale) ? std::round(x) : x);
}

double Dimension::place(const Node& value) const {
  if (scale != Scale::choices) return value.number;
  const std::string text = toml_of(value);
  for (std::size_t i = 0; i < choices.size(); ++i)
    if (toml_of(choices[i]) == text) return static_cast<double>(i);
  return 0;
}

Search read_search(Node& tune) {
  if (tune.kind != Node::Kind::table)
    fail(ErrorKind::config, "{}: tune: expected [tune], got {}", tune.where, tune.str());
  Section s(tune, "tune", "tune");
  Search search;
  const std::string method = s.text("method");
  search.method = method == "grid"     ? Method::grid
                  : method == "random" ? Method::random
                  : method == "halton" ? Method::halton
                                       : Method::asha;
  search.seed = static_cast<std::uint64_t>(s.integer("seed"));
  search.min_epochs = s.integer("min_epochs");
  search.eta = s.integer("eta");
  read_dimensions(*s.value("space"), "", search.dimensions);
  if (search.dimensions.empty())
    s.wrong("space", "expected at least one key, as \"optimizer.lr\" = { log = [1e-4, 1e-1] }");
  const bool given = s.has("trials");
  search.trials = given ? s.integer("trials") : kDefaultTrials;
  if (search.method != Method::grid) return search;
  const std::int64_t all = grid_size(s, search);
  search.trials = given ? std::min(search.trials, all) : all;
  if (search.trials > kMostTrials)
    s.wrong("space", fmt::format("the grid has more than {} points: fewer points, or trials = N", kMostTrials));
  return search;
}

std::vector<Node> proposal(const Search& search, std::int64_t number) {
  if (search.method == Method::grid) return grid_point(search, number);
  const std::vector<double> u = coordinates(search, number);
  std::vector<Node> values;
  for (std::size_t i = 0; i < u.size(); ++i) values.push_back(search.dimensions[i].at(u[i]));
  return values;
}

std::vector<std::string> assignments(const Search& search, const std::vector<Node>& values) {
  std::vector<std::string> all;
  for (std::size_t i = 0; i < values.size(); ++i) all.push_back(search.dimensions[i].key + "=" + toml_of(values[i]));
  return all;
}

bool is_rung(const Search& search, std::int64_t epoch) {
  if (search.method != Method::asha) return false;
  std::int64_t rung = search.min_epochs;
  while (rung < epoch && rung <= epoch / search.eta) rung *= search.eta;
  return rung == epoch;
}

bool goes_on(std::span<const double> costs, double own, std::int64_t eta) {
  if (std::isnan(own)) return false;
  const auto better = std::count_if(costs.begin(), costs.end(), [&](double c) { return c < own; });
  return better < std::max<std::int64_t>(1, static_cast<std::int64_t>(costs.size()) / eta);
}

std::vector<std::int64_t> by_wins(std::span<const Course> courses) {
  struct Reached {
    std::vector<double> all, ended;  // of those that came to an epoch, and that came no farther
  };
  std::map<std::int64_t, Reached> at;
  for (const Course& c : courses)
    for (const auto& [epoch, cost] : c.costs) {
      at[epoch].all.push_back(cost);
      if (epoch == c.costs.rbegin()->first) at[epoch].ended.push_back(cost);
    }
  for (auto& [_, reached] : at)
    for (auto* list : {&reached.all, &reached.ended}) std::sort(list->begin(), list->end());
  const auto beaten = [](const std::vector<double>& sorted, double cost) {  // equal ones by half
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), cost);
    return static_cast<double>(sorted.end() - high) + static_cast<double>(high - low) / 2;
  };
  std::vector<std::pair<double, std::int64_t>> order;  // the least first
  for (const Course& c : courses) {
    double wins = c.costs.empty() ? -1 : 0;
    for (const auto& [epoch, cost] : c.costs)
      wins += beaten(epoch == c.costs.rbegin()->first ? at[epoch].all : at[epoch].ended, cost);
    order.emplace_back(-wins, c.number);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::int64_t> numbers;
  for (const auto& [_, number] : order) numbers.push_back(number);
  return numbers;
}

std::vector<double> importance(const Search& search, std::span<const std::int64_t> numbers) {
  constexpr std::size_t kFewest = 4;
  std::vector<double> shares(search.dimensions.size(), 0.0);
  if (numbers.size() < kFewest) return shares;
  const int bins = std::clamp(static_cast<int>(std::sqrt(static_cast<double>(numbers.size()))), 2, 8);
  std::vector<std::vector<Node>> values;
  for (const std::int64_t n : numbers) values.push_back(proposal(search, n));
  for (std::size_t k = 0; k < shares.size(); ++k) {
    std::vector<double> places;
    for (const std::vector<Node>& v : values) places.push_back(search.dimensions[k].place(v[k]));
    shares[k] = epsilon_squared(groups_of(search.dimensions[k], places, bins));
  }
  return shares;
}

std::string importance_svg(const Search& search, std::span<const double> shares, const std::string& title) {
  constexpr int kRow = 26, kTop = 48, kBar = 300, kWidth = 640, kLeft = 250;
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  const int height = kTop + kRow * static_cast<int>(shares.size()) + 34;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"13\" fill=\"#1f2328\">\n<rect width=\"{0}\" height=\"{1}\" "
      "fill=\"#ffffff\"/>\n<text x=\"20\" y=\"28\" font-size=\"16\">{2}</text>\n",
      kWidth, height, xml_text(title));
  for (std::size_t row = 0; row < order.size(); ++row) {
    const double share = shares[order[row]];
    const int y = kTop + kRow * static_cast<int>(row);
    out += fmt::format(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>"
        "<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"16\" fill=\"#2f6fde\"/><text x=\"{:.1f}\" y=\"{}\">{:.0f}%"
        "</text>\n",
        kLeft - 10, y + 13, xml_text(search.dimensions[order[row]].key), kLeft, y, share * kBar,
        kLeft + 8 + share * kBar, y + 13, 100 * share);
  }
  out += fmt::format(
      "<text x=\"20\" y=\"{}\" fill=\"#59636e\" font-size=\"12\">share of the variance of the trials' "
      "ranks that a key explains alone</text>\n</svg>\n",
      height - 14);
  return out;
}

}  // namespace bp::train
