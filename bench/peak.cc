// What this machine does at best: products, bandwidth in caches and memory, launches; the limits of profiles.
// usage: peak [--threads N] [--seconds 2]
#include <fmt/format.h>

#include "bp/profile.h"

int main(int argc, char** argv) {
  int threads = 0;
  double seconds = 2;
  for (int i = 1; i + 1 < argc; i += 2)
    (std::string(argv[i]) == "--threads" ? threads = std::atoi(argv[i + 1]), 0 : seconds = std::atof(argv[i + 1]));
  fmt::print("{}", bp::measure_limits(threads, seconds).text());
}
