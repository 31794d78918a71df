// bp sample: the prompt, then symbol after symbol, on stdout.
#include <cstdio>

#include "commands.h"
#include "train/experiment.h"
#include "train/sample.h"

namespace bp::app {

int sample(const SampleCommand& o) {
  const train::Config c = train::read_run(o.run);
  train::SampleOptions options{
      .prompt = o.prompt, .tokens = o.tokens, .temperature = o.temperature, .top_k = o.top_k, .seed = o.seed};
  options.on_text = [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    return std::fflush(stdout) == 0;  // false once nobody reads
  };
  std::fwrite(o.prompt.data(), 1, o.prompt.size(), stdout);
  train::sample_text(c, train::load_model(c, o.run), options);
  std::fputc('\n', stdout);
  return kOk;
}

}  // namespace bp::app
