#pragma once
// Validation loss of each source.

#include <vector>

#include "data/batch.h"
#include "trainer/metrics/step_record.h"
#include "trainer/stage_runner.h"

namespace jamba {

class Evaluator {
 public:
  /// Opens the validation store of every source that has one. batch: sequences in one forward;
  /// max_tokens: of each source. The mesh must outlive it.
  /// Errors: as ValidationBatches.
  Evaluator(const Mesh&, Stream&, const DataConfig&, const ModelConfig&, std::int64_t batch,
            std::int64_t max_tokens);

  bool empty() const { return sources_.empty(); }

  /// Mean loss over the visited tokens, split over data-parallel ranks; the same answer on all
  /// ranks.
  EvalRecord run(Stream&, StageRunner&, std::int64_t step);

 private:
  struct Source {
    std::string name;
    ValidationBatches batches;
    double unigram_entropy;
  };
  EvalRecord::Source run_source(Stream&, StageRunner&, Source&);

  const Mesh& mesh_;
  std::vector<Source> sources_;
  std::int64_t batch_;
  MicrobatchBuffers buffers_;
};

}  // namespace jamba
