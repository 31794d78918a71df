// The smallest program that links an installed bp. Prints "bp 0.1.0: [2, 4, 3]".
#include <bp/shape.h>
#include <bp/version.h>

#include <cstdio>

int main() {
  const bp::Shape shape = bp::broadcast_shapes({2, 1, 3}, {4, 1}, "consumer");
  std::printf("bp %s: %s\n", bp::version(), shape.str().c_str());
}
