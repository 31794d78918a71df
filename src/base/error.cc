// Error kinds by name, and the making of a message.
#include "base/error.h"

namespace bp {

const char* name_of(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::shape: return "shape";
    case ErrorKind::dtype: return "dtype";
    case ErrorKind::value: return "value";
    case ErrorKind::trace: return "trace";
    case ErrorKind::gradient: return "gradient";
    case ErrorKind::state: return "state";
    case ErrorKind::io: return "io";
    case ErrorKind::format: return "format";
    case ErrorKind::config: return "config";
    case ErrorKind::diverged: return "diverged";
    case ErrorKind::interrupted: return "interrupted";
  }
  return "?";
}

void fail_formatted(ErrorKind kind, fmt::string_view format, fmt::format_args args) {
  throw Error(kind, fmt::vformat(format, args));
}

}  // namespace bp
