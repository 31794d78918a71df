// bp::Error: every mistake a user can make ends here, with what, where, expected and received.
//
//   try {
//     matmul(zeros({2, 3}), zeros({2, 3}));
//   } catch (const Error& e) {
//     assert(e.kind() == ErrorKind::shape);  // e.what(): the op, both shapes, what was expected
//   }
#pragma once

#include <stdexcept>
#include <string>

namespace bp {

// What went wrong, coarse enough to switch on. `bp` maps each kind to an exit code.
enum class ErrorKind {
  shape,       // sizes or ranks that do not fit
  dtype,       // an element type that does not fit
  value,       // an argument outside its domain (negative rate, probability of 2, NaN in data)
  trace,       // a traced value read or leaked during compile
  gradient,    // no gradient exists, or its history was released
  state,       // a module or optimizer used in the wrong order, or parameters that do not match
  io,          // a file that cannot be read or written (missing, full disk)
  format,      // a file that is corrupt, truncated or not what it claims
  config,      // a TOML file or command line that is wrong
  diverged,    // a loss or gradient that became NaN or infinite
  interrupted  // stopped by the user
};

// The only exception that bp throws; what() is `[op] layer: what was expected, what was received`.
class Error : public std::runtime_error {
 public:
  // A message that names what, where, expected and received.
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }  // what went wrong, to switch on

 private:
  ErrorKind kind_;
};

// "shape", "io", ...
const char* name_of(ErrorKind kind) noexcept;

}  // namespace bp
