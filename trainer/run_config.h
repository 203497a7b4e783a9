#pragma once
// Everything that one training run needs, as plain values.

#include <cstdint>
#include <string>

#include "data/data_config.h"
#include "kernels/core/dtype.h"
#include "trainer/model/model_config.h"
#include "trainer/optim/optimizer_config.h"

namespace jamba {

enum class Recompute { none, block };

/// automatic: CUDA if this program can and every rank has a device, else the CPU.
enum class DeviceChoice { automatic, cpu, cuda };

struct TrainConfig {
  std::int64_t steps = 0;
  std::int64_t micro_batch_size = 1;   // sequences in one forward
  std::int64_t global_batch_size = 0;  // sequences a step, over all ranks; 0: micro * dp
  std::uint64_t seed = 1;
  DType dtype = DType::f32;  // storage of weights and activations
  Recompute recompute = Recompute::none;
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t max_skipped_steps = 5;  // non-finite steps in a row before the run stops
  std::int64_t threads = 0;            // a rank; 0: cores / ranks on this host, at least 1
  double peak_gflops = 0;              // a rank, for MFU; 0: measured at start
};

enum class Deterministic { mesh, tree };

/// Degrees of each parallel axis; dp is what remains of the ranks.
struct ParallelConfig {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t cp = 1;
  std::int64_t ep = 1;
  bool sequence_parallel = true;  // with tp: the residual stream is split over tokens
  std::int64_t zero = 0;          // ZeRO stage, 0 to 3
  std::int64_t pp_chunks = 1;     // of layers, a stage; above 1: interleaved schedule
  std::string pp_layers{};        // of each chunk, such as "5 3"; empty: even
  Deterministic deterministic = Deterministic::mesh;
  double timeout_seconds = 1800;   // longest wait for another rank; 0: none
  bool check_collectives = false;  // compare what ranks ask for before each collective
};

struct CheckpointConfig {
  std::int64_t every = 0;  // steps; 0: only at the end
  std::int64_t keep = 2;
};

struct EvalConfig {
  std::int64_t every = 0;           // steps; 0: only at the end
  std::int64_t max_tokens = 65536;  // a source
};

struct LogConfig {
  std::int64_t every = 1;
  bool tensorboard = true;
};

struct RunConfig {
  std::string run_dir;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LogConfig log;
};

/// Every number outside its range in the table of keys; the model has its own check.
std::vector<ConfigFault> check_ranges(const RunConfig&);

/// Every number out of range and every broken rule between fields, in words; keys are full paths
/// such as "train.steps". world_size <= 0: the number of ranks is not known yet.
std::vector<ConfigFault> check(const RunConfig&, int world_size);

}  // namespace jamba
