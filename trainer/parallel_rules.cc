#include "trainer/parallel_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <sstream>

#include "kernels/core/errors.h"
#include "parallel/mesh_shape.h"

namespace jamba {

namespace {

class Faults {
 public:
  template <class... Args>
  void require(bool holds, const std::string& key, fmt::format_string<Args...> format,
               Args&&... args) {
    if (!holds) faults_.push_back({key, fmt::format(format, std::forward<Args>(args)...)});
  }
  void add(ConfigFault fault) { faults_.push_back(std::move(fault)); }
  bool empty() const { return faults_.empty(); }
  std::vector<ConfigFault> take() { return std::move(faults_); }

 private:
  std::vector<ConfigFault> faults_;
};

MeshDegrees degrees(const ParallelConfig& p) { return {p.tp, p.pp, p.cp, p.ep}; }

/// "4" or "2 or 4": the numbers around `value`, from 1 to `high`, that hold. 1 must hold.
template <class Holds>
std::string nearest(std::int64_t value, std::int64_t high, const Holds& holds) {
  std::int64_t below = std::min(value, high), above = value;
  while (!holds(below)) --below;
  while (above <= high && !holds(above)) ++above;
  return above > high ? fmt::format("{}", below) : fmt::format("{} or {}", below, above);
}

/// "12" or "8 or 12": the multiples of `unit` around `value`.
std::string nearest_multiples(std::int64_t value, std::int64_t unit) {
  const std::int64_t below = value / unit * unit, above = below + unit;
  return below > 0 ? fmt::format("{} or {}", below, above) : fmt::format("{}", above);
}

/// What tensor-parallel ranks share of a model.
class TensorShares {
 public:
  explicit TensorShares(const ModelConfig& m) {
    narrow("vocab_size", m.vocab_size);
    for (const LayerKind& layer : m.layers()) {
      if (layer.mixer == MixerKind::attention) heads_ = m.num_attention_heads;
      if (layer.mixer == MixerKind::mamba) narrow("mamba_expand x hidden_size", m.inner_size());
      if (layer.ffn == FfnKind::dense) narrow("intermediate_size", m.intermediate_size);
      if (layer.ffn == FfnKind::moe) narrow("expert_intermediate_size", m.expert_size());
    }
    kv_heads_ = m.num_key_value_heads;
  }

  std::int64_t highest() const { return heads_ > 0 ? std::min(heads_, narrowest_) : narrowest_; }
  /// Why `tp` ranks cannot share them; empty if they can.
  std::string fault(std::int64_t tp) const {
    if (heads_ % tp != 0) return fmt::format("cannot share {} attention heads evenly", heads_);
    if (heads_ > 0 && kv_heads_ % tp != 0 && tp % kv_heads_ != 0) {
      return fmt::format("neither divide {} key and value heads nor are a multiple of them",
                         kv_heads_);
    }
    if (tp <= narrowest_) return {};
    return fmt::format("are more than the narrowest dim that they share (model.{}: {})",
                       narrowest_name_, narrowest_);
  }

 private:
  void narrow(const char* name, std::int64_t size) {
    if (size >= narrowest_) return;
    narrowest_ = size;
    narrowest_name_ = name;
  }

  std::int64_t heads_ = 0, kv_heads_ = 0;  // no heads: no attention
  std::int64_t narrowest_ = std::numeric_limits<std::int64_t>::max();
  const char* narrowest_name_ = "";
};

/// `fits`: whether the ranks make a mesh of these degrees.
template <class Fits>
void check_model(Faults& faults, const RunConfig& c, const Fits& fits) {
  const MeshDegrees asked = degrees(c.parallel);
  const TensorShares shares(c.model);
  const auto shared = [&](std::int64_t tp) {
    return shares.fault(tp).empty() && fits({tp, asked.pp, asked.cp, asked.ep});
  };
  if (const std::string fault = shares.fault(asked.tp); !fault.empty()) {
    faults.require(false, "parallel.tp", "{} ranks {}; nearest: {}", asked.tp, fault,
                   nearest(asked.tp, shares.highest(), shared));
  }
  const std::int64_t experts = c.model.num_experts;
  if (num_mixtures(c.model) == 0 || experts % asked.ep == 0) return;
  const auto divides = [&](std::int64_t ep) {
    return experts % ep == 0 && fits({asked.tp, asked.pp, asked.cp, ep});
  };
  faults.require(false, "parallel.ep", "{} ranks cannot share {} experts evenly; nearest: {}",
                 asked.ep, experts, nearest(asked.ep, experts, divides));
}

template <class Fits>
void check_sequences(Faults& faults, const RunConfig& c, const Fits& fits) {
  const MeshDegrees asked = degrees(c.parallel);
  const std::int64_t seq = c.data.seq_len, looks_back = c.model.mamba_d_conv - 1;
  const bool scans = std::ranges::any_of(
      c.model.layers(), [](const LayerKind& l) { return l.mixer == MixerKind::mamba; });
  const std::int64_t least = scans ? std::max<std::int64_t>(looks_back, 1) : 1;
  if (asked.cp == 1 || seq / asked.cp >= least) return;
  const auto holds = [&](std::int64_t cp) { return fits({asked.tp, asked.pp, cp, asked.ep}); };
  faults.require(
      false, "parallel.cp",
      "{} ranks get {} of the {} tokens of data.seq_len each, but need {}{}; nearest: {}", asked.cp,
      seq / asked.cp, seq, least,
      least == 1 ? "" : ", as the convolution looks back (model.mamba_d_conv - 1)",
      nearest(asked.cp, std::max<std::int64_t>(seq / least, 1), holds));
}

void check_stages(Faults& faults, const RunConfig& c) {
  const ParallelConfig& p = c.parallel;
  const std::int64_t layers = c.model.num_hidden_layers;
  faults.require(p.pp_chunks == 1 || p.pp > 1, "parallel.pp_chunks",
                 "must be 1 without pipeline stages (parallel.pp is 1), got {}", p.pp_chunks);
  const std::int64_t chunks = p.pp * p.pp_chunks;
  if (chunks > layers) {
    const std::string count = p.pp_chunks == 1 ? "" : fmt::format(" x {} chunks", p.pp_chunks);
    faults.require(false, "parallel.pp", "{} stages{} must be at most model.num_hidden_layers ({})",
                   p.pp, count, layers);
    return;
  }
  if (p.pp_layers.empty()) return;
  const std::vector<std::int64_t> split = parse_layers(p.pp_layers);
  const std::int64_t sum = std::accumulate(split.begin(), split.end(), std::int64_t{0});
  faults.require(
      std::ssize(split) == chunks && sum == layers, "parallel.pp_layers",
      "must be as many whole numbers as chunks ({}), with spaces between, that add up to "
      "model.num_hidden_layers ({}), got '{}'",
      chunks, layers, p.pp_layers);
}

/// Rules over the microbatches that a rank has in one step. unit: sequences in one of all ranks.
void check_microbatches(Faults& faults, const ParallelConfig& p, std::int64_t dp, std::int64_t unit,
                        std::int64_t count) {
  std::int64_t group = 0;
  if (p.pp_chunks > 1 && count % p.pp != 0 && !__builtin_mul_overflow(unit, p.pp, &group)) {
    faults.require(false, "parallel.pp_chunks",
                   "above 1, a rank's microbatches a step must be a multiple of parallel.pp ({}), "
                   "but train.global_batch_size gives {}; nearest train.global_batch_size: {}",
                   p.pp, count, nearest_multiples(unit * count, group));
  }
  if (p.deterministic != Deterministic::tree) return;
  const auto power_below = [](std::int64_t n) {
    return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(n)));
  };
  faults.require(power_below(dp) == dp, "parallel.deterministic",
                 "tree needs a power of two of data-parallel ranks, got {}", dp);
  const std::int64_t below = unit * power_below(count);
  faults.require(power_below(count) == count, "parallel.deterministic",
                 "tree needs a power of two of microbatches a rank, but train.global_batch_size "
                 "gives {}; nearest train.global_batch_size: {} or {}",
                 count, below, 2 * below);
}

/// Rules that need to know dp.
void check_batch(Faults& faults, const RunConfig& c, std::int64_t dp) {
  const std::int64_t micro = c.train.micro_batch_size, global = c.train.global_batch_size;
  if (micro > global && global != 0) {
    faults.require(false, "train.global_batch_size",
                   "must be at least train.micro_batch_size ({}), got {}", micro, global);
    return;
  }
  std::int64_t unit = 0;
  if (__builtin_mul_overflow(micro, dp, &unit)) return;
  if (global % unit != 0) {
    faults.require(false, "train.global_batch_size",
                   "{} is no multiple of train.micro_batch_size x data-parallel ranks ({} x {} = "
                   "{}); nearest: {}",
                   global, micro, dp, unit, nearest_multiples(global, unit));
    return;
  }
  check_microbatches(faults, c.parallel, dp, unit, global == 0 ? 1 : global / unit);
}

}  // namespace

std::vector<std::int64_t> parse_layers(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::int64_t> out;
  std::string word;
  while (in >> word) {
    const bool digits = word.size() < 10 && std::ranges::all_of(word, [](unsigned char ch) {
                          return std::isdigit(ch) != 0;
                        });
    if (!digits) return {};
    out.push_back(std::stoll(word));
  }
  return out;
}

void expect_sound_parallel(const RunConfig& c, int world_size) {
  std::string lines;
  for (const ConfigFault& fault : check_parallel(c, world_size)) {
    lines += fmt::format("{}{}: {}", lines.empty() ? "" : "\n", fault.key, fault.message);
  }
  if (!lines.empty()) throw ConfigError(lines);
}

std::vector<ConfigFault> check_parallel(const RunConfig& c, int world_size) {
  Faults faults;
  const ParallelConfig& p = c.parallel;
  if (world_size > 0) {
    for (MeshFault& fault : check_mesh(world_size, degrees(p))) {
      faults.add({std::move(fault.key), std::move(fault.message)});
    }
  }
  const bool has_mesh = world_size > 0 && faults.empty();
  const auto fits = [&](const MeshDegrees& d) {
    return !has_mesh || check_mesh(world_size, d).empty();
  };
  check_model(faults, c, fits);
  check_sequences(faults, c, fits);
  check_stages(faults, c);
  check_batch(faults, c, has_mesh ? world_size / (p.tp * p.pp * p.cp) : 1);
  return faults.take();
}

}  // namespace jamba
