#pragma once
// Meshes, and ways to run on them, that must all compute what one rank computes.

#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace jamba::test {

struct Layout {
  std::string name;
  int ranks;
  std::string settings;  // "key=value ..." of the run's config, parallel ones first
  std::string model;     // the same, of what one rank runs too
  double tolerance = 1e-5;
};

/// What one rank runs: small_run_config with the layout's model settings.
RunConfig reference_config(const Layout&);
/// What the ranks run.
RunConfig layout_config(const Layout&);

/// Each axis alone, pairs, triples, all together; ZeRO stages, sequence parallelism, recomputation,
/// orders of microbatches, switches of the model, bfloat16.
const std::vector<Layout>& layouts();

}  // namespace jamba::test
