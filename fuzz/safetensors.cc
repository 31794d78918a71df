// io::parse_safetensors, and the reader that maps the file.
#include "target.h"

BP_FUZZ_TARGET(safetensors) {
  const bp::fuzz::File file(bytes);
  const bool parsed = bp::fuzz::accepted([&] { bp::io::parse_safetensors(bytes, "fuzz.safetensors"); });
  const bool mapped = bp::fuzz::accepted([&] { bp::io::read_safetensors(file.path(), {.map = true}); });
  if (parsed != mapped) bp::fuzz::broken("parse_safetensors and read_safetensors disagree");
}
