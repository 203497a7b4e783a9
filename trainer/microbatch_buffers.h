#pragma once
#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "trainer/model/jamba.h"

namespace jamba {

/// Memory for the token batches of one step on one rank, filled before the first forward so that
/// the number of targets is known when gradients are scaled.
class MicrobatchBuffers {
 public:
  MicrobatchBuffers(std::int64_t count, std::int64_t batch, std::int64_t seq);

  std::int64_t count() const { return static_cast<std::int64_t>(token_batches_.size()); }
  /// Where the data layer writes microbatch i.
  const Batch& tokens(std::int64_t i) const { return token_batches_[static_cast<std::size_t>(i)]; }
  /// The same as the model reads it; call after it was written.
  Microbatch model_view(std::int64_t i) const;

 private:
  Buffer memory_;
  std::vector<Batch> token_batches_;
  std::vector<Tensor> positions_;
};

}  // namespace jamba
