// io::parse_npz, of archives that unpack to at most a megabyte.
#include "target.h"

BP_FUZZ_TARGET(npz) {
  bp::fuzz::accepted([&] { bp::io::parse_npz(bytes, "fuzz.npz", {.max_bytes = 1 << 20}); });
}
