// io::parse_npy.
#include "target.h"

BP_FUZZ_TARGET(npy) {
  bp::fuzz::accepted([&] { bp::io::parse_npy(bytes, "fuzz.npy"); });
}
