// The smallest program that links an installed bp and lets it differentiate. Prints "bp 0.1.0: d(x^3)/dx at 2 = 12".
#include <bp/grad.h>
#include <bp/ops.h>
#include <bp/version.h>

#include <cstdio>

int main() {
  const bp::Tensor x = bp::scalar(2.0);
  const bp::Tensor slope = bp::grad(x * x * x, x);
  std::printf("bp %s: d(x^3)/dx at 2 = %g\n", bp::version(), slope.item());
  return slope.item() == 12.0 ? 0 : 1;
}
