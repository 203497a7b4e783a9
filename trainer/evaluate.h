#pragma once
// Validation loss of each source.

#include <vector>

#include "data/batch.h"
#include "parallel/comm/communicator.h"
#include "trainer/metrics/step_record.h"
#include "trainer/microbatch_buffers.h"
#include "trainer/model/workspace.h"

namespace jamba {

class Evaluator {
 public:
  /// Opens the validation store of every source that has one. batch: sequences in one forward;
  /// max_tokens: of each source.
  /// Errors: as ValidationBatches.
  Evaluator(const DataConfig&, const ModelConfig&, std::int64_t batch, std::int64_t max_tokens);

  bool empty() const { return sources_.empty(); }

  /// Mean loss over the visited tokens, split over the ranks; the same answer on all ranks.
  EvalRecord run(Communicator&, Workspace&, const JambaModel&, std::int64_t step);

 private:
  struct Source {
    std::string name;
    ValidationBatches batches;
    double unigram_entropy;
  };
  EvalRecord::Source run_source(Communicator&, Workspace&, const JambaModel&, JambaModel::Saved&,
                                Source&);

  std::vector<Source> sources_;
  std::int64_t batch_;
  MicrobatchBuffers buffers_;
};

}  // namespace jamba
