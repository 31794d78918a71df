// Groups of kind loop to steps.
#include "cpu/lower/lowering.h"

namespace bp::cpu {

bool lower_loop(Lowering&, const passes::Group&) { return false; }

}  // namespace bp::cpu
