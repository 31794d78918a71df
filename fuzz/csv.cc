// io::parse_csv and io::CsvFile: what one takes the other takes, with as many rows.
#include <numeric>
#include <vector>

#include "target.h"

namespace {
using bp::fuzz::accepted;

void read_both(bp::io::Bytes bytes, const std::string& path, const bp::io::CsvOptions& options) {
  std::int64_t whole = -1, streamed = -1;
  accepted([&] { whole = bp::io::parse_csv(bytes, "fuzz.csv", options).rows(); });
  accepted([&] {
    const bp::io::CsvFile file(path, options);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(file.rows()));
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    streamed = file.read(rows).rows();
  });
  const bool gzip = bytes.size() > 1 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
  if (whole != streamed && !gzip) bp::fuzz::broken("CsvFile and parse_csv disagree");
}
}  // namespace

BP_FUZZ_TARGET(csv) {
  const bp::fuzz::File file(bytes);
  const std::string_view text = bp::fuzz::text_of(bytes);
  const std::string first(text.substr(0, text.find_first_of(",\r\n")));
  read_both(bytes, file.path(), {});
  read_both(bytes, file.path(), {.missing = bp::io::Missing::nan, .allow_non_finite = true});
  read_both(bytes, file.path(), {.categorical = {first}, .missing = bp::io::Missing::drop_row});
}
