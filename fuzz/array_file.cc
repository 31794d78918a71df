// io::ArrayFile: rows read from disk are those of the reader that takes the whole file.
#include <cstring>

#include "target.h"

namespace {
bool same(const bp::Array& a, const bp::Array& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         (a.bytes() == 0 || std::memcmp(a.buffer.data(), b.buffer.data(), a.bytes()) == 0);
}
}  // namespace

BP_FUZZ_TARGET(array_file) {
  const bp::fuzz::File file(bytes);
  bp::fuzz::accepted([&] {
    const bp::io::ArrayFile rows(file.path());
    const std::int64_t n = rows.rows();
    if (n > 4096) return;  // of no bytes each
    const bp::Array read = rows.read(0, n);
    const bool npy = bp::fuzz::text_of(bytes).starts_with("\x93NUMPY");
    if (!same(read, npy ? bp::io::parse_npy(bytes, "fuzz") : bp::io::parse_idx(bytes, "fuzz")))
      bp::fuzz::broken("ArrayFile and the whole reader differ");
  });
}
