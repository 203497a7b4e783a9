#pragma once
#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "parallel/context_parallel.h"
#include "parallel/mesh.h"
#include "trainer/model/jamba.h"

namespace jamba {

/// Memory for the token batches of one step on one rank, filled before the first forward so that
/// the number of targets is known when gradients are scaled. Every context-parallel rank reads
/// whole sequences and computes on its own tokens of them.
class MicrobatchBuffers {
 public:
  /// seq_len: of whole sequences.
  MicrobatchBuffers(const Mesh&, std::int64_t count, std::int64_t batch, std::int64_t seq_len);

  std::int64_t count() const { return static_cast<std::int64_t>(wholes_.size()); }
  /// Number among the microbatches of all data-parallel ranks. They take turns, so that pairwise
  /// sums over ranks, then microbatches, are sums over neighbours.
  std::int64_t number(std::int64_t i) const { return i * mesh_.shape().dp + mesh_.at().dp; }
  /// Where the data layer writes microbatch i.
  const Batch& tokens(std::int64_t i) const { return wholes_[static_cast<std::size_t>(i)]; }
  /// The same as the model reads it; call after it was written.
  Microbatch model_view(std::int64_t i, const std::optional<RouterNoise>& = {}) const;

 private:
  /// This rank's tokens of a whole batch.
  struct Part {
    Tensor ids, labels, doc_start, positions;
  };

  const Mesh& mesh_;
  std::int64_t batch_, seq_len_;
  SequenceSplit split_;
  Buffer memory_;
  std::vector<Batch> wholes_;
  std::vector<Part> parts_;
};

}  // namespace jamba
