// Replays a kept corpus, and damaged copies of each of its files, through a fuzz target: what libFuzzer does, in
// seconds and under any compiler. The damage is the same each time. usage: fuzz_replay TARGET FOLDER [ROUNDS]
// fuzz_replay --list
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <vector>

#include "target.h"

namespace bp::fuzz {
namespace {

std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

// What is told when the process dies: which input it was.
std::array<char, 512> current{};
void died(int signal) {
  (void)!::write(STDERR_FILENO, current.data(), std::strlen(current.data()));
  ::_exit(128 + signal);
}

using Content = std::vector<char>;

Content content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Damage {
 public:
  Damage(const std::vector<Content>& corpus, std::uint64_t seed) : corpus_(corpus), random_(seed) {}

  Content operator()(Content c) {
    for (std::uint64_t n = 1 + below(4); n > 0; --n) once(c);
    return c;
  }

 private:
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : random_() % n; }

  void once(Content& c) {
    const std::uint64_t at = below(c.size()), length = std::min<std::uint64_t>(1 + below(16), c.size() - at);
    const auto from = c.begin() + static_cast<std::ptrdiff_t>(at), to = from + static_cast<std::ptrdiff_t>(length);
    switch (below(7)) {
      case 0:
        if (!c.empty()) *from = static_cast<char>(*from ^ (1 << below(8)));
        break;
      case 1:
        if (!c.empty()) *from = static_cast<char>(below(256));
        break;
      case 2: number(c, at); break;
      case 3: c.resize(at); break;
      case 4: c.erase(from, to); break;
      case 5: {
        const Content copy(from, to);
        c.insert(c.begin() + static_cast<std::ptrdiff_t>(below(c.size() + 1)), copy.begin(), copy.end());
        break;
      }
      default: {  // goes on as another file
        const Content& other = corpus_[below(corpus_.size())];
        c.resize(at);
        if (at < other.size()) c.insert(c.end(), other.begin() + static_cast<std::ptrdiff_t>(at), other.end());
      }
    }
  }

  // A size on the edge in place of up to eight bytes.
  void number(Content& c, std::uint64_t at) {
    constexpr std::array<std::uint64_t, 8> edges{
        0, 1, 0x7f, 0x80, 0x7fffffff, 0xffffffff, ~std::uint64_t{0} >> 1, ~std::uint64_t{0}};
    const std::uint64_t value = edges[below(edges.size())], width = std::uint64_t{1} << below(4);
    std::memcpy(c.data() + at, &value, std::min<std::uint64_t>(width, c.size() - at));
  }

  const std::vector<Content>& corpus_;
  std::mt19937_64 random_;
};

void run(Target target, const Content& c) {
  // Of exactly this size on the heap, so that a sanitizer sees a read behind the end.
  const Content exact(c.begin(), c.end());
  ::alarm(20);
  target({reinterpret_cast<const std::byte*>(exact.data()), exact.size()});
  ::alarm(0);
}

int replay(const std::string& name, const std::filesystem::path& folder, int rounds) {
  const auto target = targets().find(name);
  if (target == targets().end()) broken("no such target");
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) broken("no corpus");
  std::vector<Content> corpus;
  for (const auto& file : files) corpus.push_back(content_of(file));
  for (std::size_t i = 0; i < files.size(); ++i)
    for (int round = 0; round <= rounds; ++round) {
      std::snprintf(current.data(), current.size(), "fuzz_replay: died in %s, %s, round %d (0: as it is)\n",
                    name.c_str(), files[i].c_str(), round);
      Damage damage(corpus, static_cast<std::uint64_t>(round) * 1000 + i);
      run(target->second, round == 0 ? corpus[i] : damage(corpus[i]));
    }
  std::printf("%s: %zu files, %d damaged copies of each\n", name.c_str(), files.size(), rounds);
  return 0;
}

}  // namespace

Registered::Registered(const char* name, Target target) { targets()[name] = target; }

}  // namespace bp::fuzz

int main(int argc, char** argv) {
  using namespace bp::fuzz;
  if (argc == 2 && std::string_view(argv[1]) == "--list") {
    for (const auto& [name, target] : targets()) std::puts(name.c_str());
    return 0;
  }
  if (argc < 3) broken("usage: fuzz_replay TARGET FOLDER [ROUNDS]");
  for (const int signal : {SIGABRT, SIGALRM}) std::signal(signal, died);
#ifndef BP_SANITIZED
  std::signal(SIGSEGV, died);  // of which sanitizers tell more
  // A size that was believed ends here. Sanitizers, which map terabytes for themselves, have a limit of their own.
  const rlimit limit{std::uint64_t{4} << 30, std::uint64_t{4} << 30};
  ::setrlimit(RLIMIT_AS, &limit);
#endif
  return replay(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 0);
}
