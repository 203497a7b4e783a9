#pragma once
// Streams run nothing when work is issued to them, only when somebody waits: then work of all
// streams, in an order that the seed decides. A missing wait between streams shows as a wrong
// result.

#include <cuda_runtime.h>

#include <functional>
#include <string>

namespace cuda_emulation {

/// Issues work that has been done when it returns true.
void issue(cudaStream_t, std::string name, std::function<bool()> work);
/// Runs work of any streams until this one, or all of them, have none left.
void drain(cudaStream_t);
void drain_all();
/// Does some of what can be done, of any streams.
void make_progress();
bool is_idle(cudaStream_t);

}  // namespace cuda_emulation
