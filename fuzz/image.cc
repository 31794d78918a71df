// io::parse_image: PNG and JPEG, grey and coloured.
#include "bp/images.h"
#include "target.h"

BP_FUZZ_TARGET(image) {
  for (const int channels : {1, 3})
    bp::fuzz::accepted([&] { bp::io::parse_image(bytes, "fuzz.png", {.channels = channels, .max_pixels = 1 << 16}); });
}
