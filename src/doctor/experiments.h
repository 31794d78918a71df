// The experiments, one a function that returns a row of the table cures(); called by cures.cc alone.
#pragma once

#include "doctor/cures.h"

namespace bp::doctor {

Cure vanishing();
Cure exploding();
Cure saddle();
Cure minimum();
Cure plateau();
Cure cost();
Cure overfitting();
Cure tuning();
Cure logits();
Cure precision();

}  // namespace bp::doctor
