// The text of the error that a call throws, for tests that look for names in it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "bp/error.h"

namespace bp {

template <class F> std::string message_of(ErrorKind kind, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

// The same, of whatever kind the error is; behind the name of its kind: "shape: [conv] ...".
template <class F> std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) { return std::string(name_of(e.kind())) + ": " + e.what(); }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

template <class F> std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace bp
