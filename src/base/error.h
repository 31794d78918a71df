// Throwing bp::Error with a formatted message. Internal: public headers never include fmt.
#pragma once

#include <fmt/core.h>

#include "bp/error.h"
#include "bp/shape.h"

namespace bp {

[[noreturn]] void fail_formatted(ErrorKind kind, fmt::string_view format, fmt::format_args args);

// fail(ErrorKind::shape, "[conv2d] expected input [N, H, W, {}], got {}", c, shape.str());
// Only packs its arguments: it stands in hundreds of places, which need not each compile the making of a message.
// fmt::join needs <fmt/format.h>.
template <class... Args> [[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  fail_formatted(kind, format, fmt::make_format_args(args...));
}

}  // namespace bp

template <> struct fmt::formatter<bp::Shape> {
  constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
  template <class Ctx> auto format(const bp::Shape& s, Ctx& ctx) const {
    return fmt::format_to(ctx.out(), "{}", s.str());
  }
};
