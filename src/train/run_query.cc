// Choosing, ordering and comparing records of runs.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <set>

#include "base/error.h"
#include "base/nearest.h"
#include "train/runs.h"

namespace bp::train {

namespace {

double number_in(const std::string& text) {
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  return error == std::errc() && end == text.data() + text.size() ? x : std::nan("");
}

Property number_property(double x) { return {fmt::format("{}", x), x}; }
Property text_property(const std::string& text) { return {text, number_in(text)}; }

struct Condition {
  std::string name, operation, value;
};

Condition parse_condition(const std::string& text) {
  const auto at = text.find_first_of("=!<>~");
  if (at != std::string::npos && at != 0) {
    for (const char* operation : {"<=", ">=", "!=", "=", "<", ">", "~"})
      if (text.compare(at, std::string_view(operation).size(), operation) == 0)
        return {text.substr(0, at), operation, text.substr(at + std::string_view(operation).size())};
  }
  fail(ErrorKind::config,
       "\"{}\" is no condition: expected NAME=VALUE, or != < <= > >= ~ (contains) in the place of =", text);
}

bool compare(int order, const std::string& operation) {
  if (operation == "=") return order == 0;
  if (operation == "!=") return order != 0;
  if (operation == "<") return order < 0;
  if (operation == "<=") return order <= 0;
  if (operation == ">") return order > 0;
  return order >= 0;
}

bool holds(const Condition& c, const RunRecord& run) {
  const std::optional<Property> p = property(run, c.name);
  if (!p) return c.operation == "!=";
  if (c.operation == "~") return p->text.find(c.value) != std::string::npos;
  const double wanted = number_in(c.value);
  if (!std::isnan(wanted) && !std::isnan(p->number))
    return compare(p->number < wanted ? -1 : p->number > wanted ? 1 : 0, c.operation);
  return compare(p->text.compare(c.value), c.operation);
}

constexpr std::array kProperties = {"run",     "name",   "status",         "reason", "started",    "updated",
                                    "seconds", "epochs", "planned_epochs", "steps",  "parameters", "config_hash"};

void require_known(const std::vector<RunRecord>& runs, const std::string& name) {
  std::set<std::string> known(kProperties.begin(), kProperties.end());
  for (const RunRecord& r : runs) {
    if (property(r, name)) return;
    for (const auto& [metric, values] : r.metrics) known.insert({metric, "best." + metric});
    for (const auto& [key, value] : r.settings) known.insert(key);
  }
  if (runs.empty() || known.contains(name)) return;
  const std::vector<std::string> names(known.begin(), known.end());
  fail(ErrorKind::config, "no run has \"{}\": did you mean \"{}\"?", name, nearest_name(name, names));
}

// By number where both are numbers, otherwise by text; what is missing comes last either way.
bool before(const std::optional<Property>& a, const std::optional<Property>& b, bool descending) {
  if (!a || !b) return a.has_value() && !b.has_value();
  if (!std::isnan(a->number) && !std::isnan(b->number))
    return descending ? b->number < a->number : a->number < b->number;
  return descending ? b->text < a->text : a->text < b->text;
}

}  // namespace

std::string utc(double seconds) {
  if (!(seconds > 0 && seconds < 1e11)) return "";
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&whole, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::optional<Property> property(const RunRecord& r, const std::string& name) {
  const double none = std::nan("");
  if (name == "run") return Property{r.folder, none};
  if (name == "name") return Property{r.name, none};
  if (name == "status") return Property{r.status, none};
  if (name == "reason") return Property{r.reason, none};
  if (name == "config_hash") return Property{r.config_hash, none};
  if (name == "started") return Property{utc(r.started), none};
  if (name == "updated") return Property{utc(r.updated), none};
  if (name == "seconds") return number_property(r.seconds);
  for (auto [key, value] : {std::pair{"epochs", r.epochs},
                            {"planned_epochs", r.planned_epochs},
                            {"steps", r.steps},
                            {"parameters", r.parameters}})
    if (name == key) return number_property(static_cast<double>(value));
  const bool best = name.starts_with("best.");
  if (const auto m = r.metrics.find(best ? name.substr(5) : name); m != r.metrics.end())
    return number_property(best ? m->second.best : m->second.last);
  for (const auto& [key, value] : r.settings)
    if (key == name) return text_property(value);
  return std::nullopt;
}

std::vector<RunRecord> select_runs(std::vector<RunRecord> runs, const std::vector<std::string>& conditions) {
  for (const std::string& text : conditions) {
    const Condition c = parse_condition(text);
    require_known(runs, c.name);
    std::erase_if(runs, [&](const RunRecord& r) { return !holds(c, r); });
  }
  return runs;
}

void sort_runs(std::vector<RunRecord>& runs, const std::string& by) {
  const bool descending = by.starts_with('-');
  const std::string name = descending ? by.substr(1) : by;
  require_known(runs, name);
  std::stable_sort(runs.begin(), runs.end(), [&](const RunRecord& a, const RunRecord& b) {
    return before(property(a, name), property(b, name), descending);
  });
}

std::vector<ComparedRow> differing_settings(const std::vector<RunRecord>& runs) {
  std::vector<ComparedRow> rows;
  std::set<std::string> seen;
  for (const RunRecord& owner : runs) {
    for (const auto& setting : owner.settings) {
      if (!seen.insert(setting.first).second) continue;
      ComparedRow row{setting.first, {}};
      for (const RunRecord& r : runs) {
        const auto at = std::find_if(r.settings.begin(), r.settings.end(),
                                     [&](const auto& other) { return other.first == setting.first; });
        row.values.push_back(at == r.settings.end() ? "" : at->second);
      }
      const bool differs = std::any_of(row.values.begin(), row.values.end(),
                                       [&](const std::string& value) { return value != row.values.front(); });
      if (differs) rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace bp::train
