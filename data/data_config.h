#pragma once
// Which token stores feed a run, and how sequences are made of them.

#include <cstdint>
#include <string>
#include <vector>

namespace jamba {

/// One source of text. Weights are relative; 0 takes part in evaluation only.
struct DataSource {
  std::string name;
  std::string train;       // token store, HDF5
  std::string validation;  // token store, HDF5; empty: none
  double weight = 1.0;
};

struct DataConfig {
  std::vector<DataSource> sources;
  std::string tokenizer;  // sentencepiece .model file, or "bytes"
  std::int64_t seq_len = 0;
  /// Documents packed into one sequence do not see each other: attention is block-diagonal and the
  /// Mamba state and convolution restart.
  bool reset_at_documents = true;
};

}  // namespace jamba
