#include <nvtx3/nvToolsExt.h>

#include "kernels/core/backend.h"

namespace jamba::cuda {

void push_range(const char* name) { nvtxRangePushA(name); }
void pop_range() { nvtxRangePop(); }

}  // namespace jamba::cuda
