// Models: modules and their parameters (bp/module.h), the layers (bp/layers.h, which includes the families
// activations.h, embedding.h, norms.h and regularisers.h; bp/recurrent.h), initialisers (bp/init.h).
#pragma once

#include "bp/init.h"
#include "bp/layers.h"
#include "bp/module.h"
#include "bp/recurrent.h"
