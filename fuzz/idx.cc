// io::parse_idx.
#include "target.h"

BP_FUZZ_TARGET(idx) {
  bp::fuzz::accepted([&] { bp::io::parse_idx(bytes, "fuzz.idx"); });
}
