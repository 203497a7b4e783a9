#pragma once
#include <string>
#include <vector>

#include "trainer/run_config.h"
#include "trainer/verify/comparison.h"
#include "trainer/verify/fixture.h"

namespace jamba {

struct VerifyOptions {
  DType dtype = DType::f32;
  Recompute recompute = Recompute::none;
  DeviceChoice device = DeviceChoice::automatic;
  ParallelConfig parallel{};
  /// Bound on each tensor's relative error, and on each step's relative loss error.
  double tolerance = 1e-4;
};

/// Runs the fixture through our model, cut along the mesh, and fills the comparison with logical
/// tensors: losses, logits, hidden states, router logits and each parameter's gradient; or the
/// losses and weights of a training run; or the output and gradients of one mixer. All ranks call
/// it together and get the same comparison. Data-parallel ranks each take the fixture's whole
/// batch. Errors: ConfigError if the fixture does not fit the mesh.
void verify(Communicator& world, Stream&, const Fixture&, const VerifyOptions&, Comparison&);

}  // namespace jamba
