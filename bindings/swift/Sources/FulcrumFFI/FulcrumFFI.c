// A target needs a source file; what is here is the header of the library.
#include "FulcrumFFI.h"
