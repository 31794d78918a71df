// Groups of kind movement to steps.
#include "cpu/lower/lowering.h"

namespace bp::cpu {

bool lower_movement(Lowering&, const passes::Group&) { return false; }

}  // namespace bp::cpu
