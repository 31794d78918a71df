// From the times of steps to a Profile: medians, limits, sums, text and a trace for browsers.
#include "runtime/profile.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace bp {

namespace runtime {

namespace {
double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}
}  // namespace

void StepTimes::add(const cpu::Executable& executable, const std::vector<std::vector<double>>& seconds) {
  ++runs_;
  const std::vector<cpu::Step>& steps = executable.program().steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    samples_[&steps[i]].seconds.push_back(seconds[i].back());
    add_bodies(steps[i]);
  }
}

// A branch that was not taken adds nothing.
void StepTimes::add_bodies(const cpu::Step& step) {
  for (const cpu::KernelBody& b : step.kernel->bodies()) {
    const cpu::BoundProgram& body = *b.program;
    for (std::size_t i = 0; i < body.seconds().size(); ++i) {
      if (body.runs_of(i) == 0) continue;
      Samples& s = samples_[&body.program().steps[i]];
      s.seconds.push_back(body.seconds()[i]);
      s.runs = body.runs_of(i);
      add_bodies(body.program().steps[i]);
    }
  }
}

// Appends steps to a profile, what is inside of them below.
struct StepTimes::Writer {
  const StepTimes& times;
  const MachineLimits& limits;
  Profile& out;

  // The least time for one run of a step, and what decides it.
  std::pair<double, Bound> limit_of(const cpu::Program& program, const cpu::Step& step, int threads) const {
    double read = 0, written = 0;
    for (cpu::BufferId b : step.reads) read += static_cast<double>(program.buffers[b].bytes);
    for (cpu::BufferId b : step.writes) written += static_cast<double>(program.buffers[b].bytes);
    const double told = read + written > 0 ? step.info.bytes / (read + written) : 0;  // parts of operands only
    const std::pair<double, Bound> candidates[] = {
        {limits.launch(threads), Bound::launch},
        {limits.seconds(read * told, written * told, threads), Bound::bandwidth},
        {step.info.flops / limits.flops(step.info.dtype, threads), Bound::flops}};
    return *std::max_element(std::begin(candidates), std::end(candidates),
                             [](const auto& a, const auto& b) { return a.first < b.first; });
  }

  // copies: how many threads do the same on other rows of the batch.
  void add(const cpu::Program& program, const cpu::Step& step, int threads, int copies, int depth, double start) {
    const auto found = times.samples_.find(&step);
    if (found == times.samples_.end()) return;
    const Samples& s = found->second;
    const cpu::StepInfo& info = step.info;
    ProfileStep row{.name = info.name,
                    .layer = ir::scope_path(info.scope),
                    .pass = info.update     ? "update"
                            : info.backward ? "backward"
                                            : "forward",
                    .depth = depth,
                    .threads = threads * copies,
                    .runs = s.runs,
                    .start = start,
                    .seconds = median(s.seconds),
                    .flops = info.flops * s.runs * copies,
                    .bytes = info.bytes * s.runs * copies};
    const auto [limit, bound] = limit_of(program, step, threads);
    row.limit_seconds = limit * s.runs;
    row.bound = bound;
    row.own_seconds = row.seconds;
    const std::size_t at = out.steps.size();
    out.steps.push_back(std::move(row));
    for (const cpu::KernelBody& body : step.kernel->bodies()) add_body(*body.program, body.copies * copies, depth + 1);
    if (out.steps.size() > at + 1) settle(at);
  }

  void add_body(const cpu::BoundProgram& body, int copies, int depth) {
    const cpu::Program& program = body.program();
    for (std::size_t i = 0; i < program.steps.size(); ++i)
      add(program, program.steps[i], body.threads_of(i), i < program.shared ? 1 : copies, depth, 0);
  }

  // A loop's limit is that of its steps; they lie side by side within its time, all shrunk alike where medians of
  // single steps add up to more than that of the loop.
  void settle(std::size_t at) {
    ProfileStep& loop = out.steps[at];
    double inside = 0, most = -1;
    loop.limit_seconds = 0;
    for (std::size_t i = at + 1; i < out.steps.size(); ++i) {
      const ProfileStep& s = out.steps[i];
      if (s.depth != loop.depth + 1) continue;
      inside += s.seconds;
      loop.limit_seconds += s.limit_seconds;
      if (s.limit_seconds > most) {
        most = s.limit_seconds;
        loop.bound = s.bound;
      }
    }
    const double shrink = inside > loop.seconds ? loop.seconds / inside : 1;
    loop.own_seconds = std::max(0.0, loop.seconds - inside);
    double start = 0, shift = 0;  // starts inside are counted from the beginning of the loop until the top is known
    for (std::size_t i = at + 1; i < out.steps.size(); ++i) {
      ProfileStep& s = out.steps[i];
      s.seconds *= shrink;
      s.own_seconds *= shrink;
      if (s.depth == loop.depth + 1) {
        s.start = shift = start;
        start += s.seconds;
      } else {
        s.start = shift + s.start * shrink;
      }
    }
  }
};

Profile StepTimes::profile(const cpu::Executable& executable, const MachineLimits& limits) const {
  Profile out;
  out.runs = runs_;
  Writer writer{*this, limits, out};
  double start = 0;
  const cpu::Program& program = executable.program();
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    const std::size_t at = out.steps.size();
    writer.add(program, program.steps[i], executable.threads_of(i), 1, 0, start);
    for (std::size_t k = at + 1; k < out.steps.size(); ++k) out.steps[k].start += start;
    start += out.steps[at].seconds;
  }
  return out;
}

const MachineLimits& machine_limits(int threads) {
  static std::mutex mutex;
  static std::map<int, MachineLimits> measured;
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = measured.try_emplace(threads);
  if (fresh) at->second = measure_limits(threads);
  return at->second;
}

}  // namespace runtime

const char* name_of(Bound bound) noexcept {
  switch (bound) {
    case Bound::flops: return "flops";
    case Bound::bandwidth: return "bandwidth";
    case Bound::launch: return "launch";
  }
  return "";
}

double Profile::seconds() const {
  double sum = 0;
  for (const ProfileStep& s : steps)
    if (s.depth == 0) sum += s.seconds;
  return sum;
}

double Profile::limit_seconds() const {
  double sum = 0;
  for (const ProfileStep& s : steps)
    if (s.depth == 0) sum += s.limit_seconds;
  return sum;
}

namespace {

template <class Name> std::vector<ProfileSum> sums(const std::vector<ProfileStep>& steps, Name name) {
  std::map<std::string, ProfileSum> by_name;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const ProfileStep& s = steps[i];
    ProfileSum& sum = by_name[name(s)];
    sum.seconds += s.own_seconds;
    ++sum.steps;
    if (i + 1 < steps.size() && steps[i + 1].depth > s.depth) continue;
    sum.flops += s.flops;
    sum.bytes += s.bytes;
    sum.limit_seconds += s.limit_seconds;
  }
  std::vector<ProfileSum> out;
  for (auto& [key, sum] : by_name) {
    sum.name = key;
    out.push_back(sum);
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return out;
}

double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }
double giga(double amount, double seconds) { return seconds > 0 ? amount / seconds * 1e-9 : 0; }

void write_sums(std::string& out, const char* title, const std::vector<ProfileSum>& sums, double total) {
  out += fmt::format("\n{:>10} {:>6} {:>9} {:>9} {:>6} {:>6}  {}\n", "us", "time", "GFLOP/s", "GB/s", "limit", "steps",
                     title);
  for (const ProfileSum& s : sums)
    out += fmt::format("{:10.2f} {:5.1f}% {:9.2f} {:9.2f} {:5.0f}% {:6}  {}\n", s.seconds * 1e6,
                       share(s.seconds, total), giga(s.flops, s.seconds), giga(s.bytes, s.seconds),
                       share(s.limit_seconds, s.seconds), s.steps, s.name.empty() ? "(no layer)" : s.name);
}

}  // namespace

std::vector<ProfileSum> Profile::by_layer() const {
  return sums(steps, [](const ProfileStep& s) { return s.layer; });
}
std::vector<ProfileSum> Profile::by_pass() const {
  return sums(steps, [](const ProfileStep& s) { return s.pass; });
}
std::vector<ProfileSum> Profile::by_bound() const {
  return sums(steps, [](const ProfileStep& s) { return std::string(name_of(s.bound)); });
}

std::string Profile::summary() const {
  std::string out;
  write_sums(out, "layer", by_layer(), seconds());
  write_sums(out, "pass", by_pass(), seconds());
  write_sums(out, "bound by", by_bound(), seconds());
  return out + fmt::format("\n{:10.2f} us in all, {:.2f} us at the machine's limits ({:.0f}%)\n", seconds() * 1e6,
                           limit_seconds() * 1e6, share(limit_seconds(), seconds()));
}

std::string Profile::text() const {
  std::string out = fmt::format("{:>10} {:>6} {:>9} {:>9} {:>6} {:<9} {:<8}  step\n", "us", "time", "GFLOP/s", "GB/s",
                                "limit", "bound by", "pass");
  const double total = seconds();
  for (const ProfileStep& s : steps)
    out += fmt::format("{:10.2f} {:5.1f}% {:9.2f} {:9.2f} {:5.0f}% {:<9} {:<8}  {:{}}{}{} [{}] {}\n", s.seconds * 1e6,
                       share(s.seconds, total), giga(s.flops, s.seconds), giga(s.bytes, s.seconds),
                       share(s.limit_seconds, s.seconds), name_of(s.bound), s.pass, "", 4 * s.depth,
                       s.runs > 1 ? fmt::format("{:.0f} x ", s.runs) : "", s.name, s.threads, s.layer);
  return out + summary();
}

std::string Profile::chrome_trace() const {
  using nlohmann::json;
  json events = json::array();
  for (const ProfileStep& s : steps)
    events.push_back({{"name", s.layer.empty() ? s.name : s.layer + ": " + s.name},
                      {"cat", s.pass},
                      {"ph", "X"},
                      {"pid", 1},
                      {"tid", 1},
                      {"ts", s.start * 1e6},
                      {"dur", s.seconds * 1e6},
                      {"args",
                       {{"step", s.name},
                        {"layer", s.layer},
                        {"threads", s.threads},
                        {"runs", s.runs},
                        {"own_us", s.own_seconds * 1e6},
                        {"flops", s.flops},
                        {"bytes", s.bytes},
                        {"limit_us", s.limit_seconds * 1e6},
                        {"bound", name_of(s.bound)}}}});
  return json{{"traceEvents", events}, {"displayTimeUnit", "ns"}}.dump(1) + "\n";
}

}  // namespace bp
