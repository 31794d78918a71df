// train::parse_config: a run is described, no data are read.
#include "train/config.h"

#include "../target.h"

BP_FUZZ_TARGET(config) {
  bp::fuzz::accepted([&] {
    bp::train::parse_config(bp::train::parse_toml(bp::fuzz::text_of(bytes), "fuzz.toml"), "/nowhere", "fuzz");
  });
}
