#pragma once
#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "kernels/core/memory.h"
#include "parallel/context_parallel.h"
#include "parallel/mesh.h"
#include "trainer/model/jamba.h"

namespace jamba {

/// Memory for the token batches of one step on one rank, filled before the first forward so that
/// the number of targets is known when gradients are scaled. Every context-parallel rank reads
/// whole sequences and computes on its own tokens of them.
class MicrobatchBuffers {
 public:
  /// seq_len: of whole sequences.   stream: the model's.
  MicrobatchBuffers(const Mesh&, Stream& stream, std::int64_t count, std::int64_t batch,
                    std::int64_t seq_len);

  std::int64_t count() const { return static_cast<std::int64_t>(wholes_.size()); }
  /// Number among the microbatches of all data-parallel ranks. They take turns, so that pairwise
  /// sums over ranks, then microbatches, are sums over neighbours.
  std::int64_t number(std::int64_t i) const { return i * mesh_.shape().dp + mesh_.at().dp; }
  /// Where the data layer writes microbatch i, in the host's memory.
  const Batch& tokens(std::int64_t i) const { return wholes_[static_cast<std::size_t>(i)]; }
  /// Brings microbatch i, once it is written, to where the model reads it. CUDA: on a stream of its
  /// own, which the model's stream waits for; the host does not.
  void send(std::int64_t i);
  /// What was sent, as the model reads it.
  Microbatch model_view(std::int64_t i, const std::optional<RouterNoise>& = {}) const;

 private:
  /// What the model reads of a batch: this rank's tokens, and the documents of whole sequences.
  struct Part {
    Part(const Tensor& memory, std::int64_t batch, std::int64_t seq, std::int64_t whole_seq);
    static std::int64_t size(std::int64_t batch, std::int64_t seq, std::int64_t whole_seq) {
      return batch * (4 * seq + whole_seq);
    }

    Tensor memory;  // of all that follow
    Tensor ids, labels, doc_start, positions, whole_doc_start;
  };

  const Mesh& mesh_;
  Stream& stream_;
  Stream sending_;
  std::int64_t batch_, seq_len_;
  SequenceSplit split_;
  Buffer written_, staging_;
  Buffer on_device_;  // none on the CPU, where the model reads staging_
  std::vector<Batch> wholes_;
  std::vector<Part> staged_, parts_;
  std::vector<std::int64_t> documents_;  // of each microbatch
};

}  // namespace jamba
