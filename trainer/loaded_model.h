#pragma once
#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/model/jamba.h"

namespace jamba {

/// A model read from a checkpoint, for inference on one rank: no gradients, no optimizer.
class LoadedModel {
 public:
  /// path: a checkpoint, a directory of checkpoints, or a run directory.
  /// Errors: NoInputError, CheckpointError.
  LoadedModel(Stream&, const std::string& path, DType compute_dtype);

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  const JambaModel& model() const { return model_; }
  const Mesh& mesh() const { return mesh_; }
  Parameters& parameters() { return parameters_; }
  DType compute_dtype() const { return parameters_.compute_dtype(); }

  /// The tokenizer that the checkpoint carries.
  /// Errors: DataError if it carries none: only token ids can be used then.
  std::unique_ptr<Tokenizer> tokenizer() const;

 private:
  LoadedModel(Stream&, const FoundCheckpoint&, DType compute_dtype);

  std::string path_;
  Manifest manifest_;
  Mesh mesh_;  // of one rank
  Parameters parameters_;
  JambaModel model_;
};

}  // namespace jamba
