// io::read_file, which unpacks gzip.
#include "target.h"

BP_FUZZ_TARGET(gzip) {
  const bp::fuzz::File file(bytes);
  bp::fuzz::accepted([&] {
    if (bp::io::read_file(file.path(), {.max_bytes = 1 << 20}).bytes() > 1 << 20)
      bp::fuzz::broken("more than the limit");
  });
}
