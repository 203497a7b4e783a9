#pragma once
#include <string>
#include <vector>

#include "trainer/model/jamba.h"
#include "trainer/verify/comparison.h"
#include "trainer/verify/fixture.h"

namespace jamba {

struct VerifyOptions {
  DType dtype = DType::f32;
  Recomputation recomputation = Recomputation::off;
  /// Bound on each tensor's relative error, and on each step's relative loss error.
  double tolerance = 1e-4;
};

/// Runs the fixture through our model and fills the comparison: losses, logits, hidden states,
/// router logits and each parameter's gradient; or the losses and weights of a training run; or the
/// output and gradients of one mixer.
void verify(Stream&, const Fixture&, const VerifyOptions&, Comparison&);

}  // namespace jamba
