// The version of the linked library, for programs that check it against their headers.
#include "bp/version.h"

namespace bp {

const char* version() noexcept { return BP_VERSION_STRING; }

}  // namespace bp
