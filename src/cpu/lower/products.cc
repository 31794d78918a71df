// Groups of kind product to steps.
#include "cpu/lower/lowering.h"

namespace bp::cpu {

bool lower_product(Lowering&, const passes::Group&) { return false; }

}  // namespace bp::cpu
