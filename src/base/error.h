// Throwing bp::Error with a formatted message. Internal: public headers never include fmt.
#pragma once

#include <fmt/format.h>

#include "bp/error.h"
#include "bp/shape.h"

namespace bp {

// fail(ErrorKind::shape, "[conv2d] expected input [N, H, W, {}], got {}", c, shape.str());
template <class... Args> [[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace bp

template <> struct fmt::formatter<bp::Shape> : fmt::formatter<std::string> {
  template <class Ctx> auto format(const bp::Shape& s, Ctx& ctx) const {
    return fmt::formatter<std::string>::format(s.str(), ctx);
  }
};
