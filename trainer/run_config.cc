#include "trainer/run_config.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "kernels/core/errors.h"
#include "trainer/config/fields.h"

namespace jamba {

namespace {

using config::FieldVisitor;
using config::IntegerRange;
using config::Key;
using config::RealRange;

/// Holds every number against the range that the table of keys states. Not the model's, which has
/// its own check.
class RangeCheck : public FieldVisitor {
 public:
  std::vector<ConfigFault> take_faults() { return std::move(faults_); }

  void integer(const Key& key, std::int64_t& value, IntegerRange range) override {
    require(key, contains(range, value), in_words(range), value);
  }
  void real(const Key& key, double& value, RealRange range) override {
    require(key, contains(range, value), in_words(range), value);
  }
  void boolean(const Key&, bool&) override {}
  void text(const Key&, std::string&) override {}
  void choice(const Key&, std::size_t&, std::span<const std::string_view>) override {}
  void begin_section(const Key& key) override { path_.emplace_back(key.name); }
  void end_section() override { path_.pop_back(); }
  std::size_t begin_list(const Key& key, std::size_t size) override {
    path_.emplace_back(key.name);
    return size;
  }
  void begin_item(std::size_t index) override { path_.push_back(std::to_string(index)); }
  void end_item() override { path_.pop_back(); }
  void end_list() override { path_.pop_back(); }

 private:
  template <class Number>
  void require(const Key& key, bool holds, const std::string& range, Number value) {
    if (holds || (!path_.empty() && path_.front() == "model")) return;
    std::string path;
    for (const std::string& part : path_) path += part + ".";
    faults_.push_back(
        {path + std::string(key.name), fmt::format("must be {}, got {}", range, value)});
  }

  std::vector<std::string> path_;
  std::vector<ConfigFault> faults_;
};

/// Collects faults of the rules between keys; a rule whose operands are out of range is silent.
class Rules {
 public:
  explicit Rules(std::vector<ConfigFault> faults) : faults_(std::move(faults)) {}

  bool sound(std::initializer_list<std::string_view> keys) const {
    return std::none_of(faults_.begin(), faults_.end(), [&](const ConfigFault& fault) {
      return std::find(keys.begin(), keys.end(), fault.key) != keys.end();
    });
  }
  template <class... Args>
  void require(bool holds, const std::string& key, fmt::format_string<Args...> format,
               Args&&... args) {
    if (!holds) faults_.push_back({key, fmt::format(format, std::forward<Args>(args)...)});
  }
  std::vector<ConfigFault> take() { return std::move(faults_); }

 private:
  std::vector<ConfigFault> faults_;
};

/// Axes other than data parallelism have their place in the format but not yet in the trainer.
void check_axes(Rules& rules, const ParallelConfig& c) {
  const struct {
    const char* key;
    const char* name;
    std::int64_t degree;
  } axes[] = {{"parallel.tp", "tensor parallelism", c.tp},
              {"parallel.pp", "pipeline parallelism", c.pp},
              {"parallel.cp", "context parallelism", c.cp},
              {"parallel.ep", "expert parallelism", c.ep}};
  for (const auto& axis : axes) {
    rules.require(axis.degree <= 1, axis.key,
                  "{} is not supported in this version: must be 1, got {}; ranks are data parallel",
                  axis.name, axis.degree);
  }
}

void check_batch(Rules& rules, const TrainConfig& c, int world_size) {
  if (!rules.sound({"train.micro_batch_size", "train.global_batch_size"})) return;
  if (c.global_batch_size == 0) return;
  const std::int64_t ranks = std::max(world_size, 1);
  if (c.micro_batch_size > c.global_batch_size) {
    rules.require(false, "train.global_batch_size",
                  "must be at least train.micro_batch_size ({}), got {}", c.micro_batch_size,
                  c.global_batch_size);
    return;
  }
  // micro <= global here, so the product cannot overflow for any real number of ranks.
  std::int64_t unit = 0;
  if (__builtin_mul_overflow(c.micro_batch_size, ranks, &unit)) return;
  const std::int64_t below = c.global_batch_size / unit * unit;
  rules.require(c.global_batch_size == below, "train.global_batch_size",
                "{} is no multiple of train.micro_batch_size x data-parallel ranks ({} x {} = {}); "
                "nearest: {}{}",
                c.global_batch_size, c.micro_batch_size, ranks, unit,
                below > 0 ? fmt::format("{} or ", below) : "", below + unit);
}

void check_schedule(Rules& rules, const OptimizerConfig& c, std::int64_t steps) {
  if (rules.sound({"optimizer.lr", "optimizer.min_lr"})) {
    rules.require(c.min_lr <= c.lr, "optimizer.min_lr", "must be at most optimizer.lr ({}), got {}",
                  c.lr, c.min_lr);
  }
  if (!rules.sound({"train.steps", "optimizer.warmup_steps", "optimizer.decay_steps"})) return;
  rules.require(c.warmup_steps <= steps, "optimizer.warmup_steps",
                "must be at most train.steps ({}), got {}", steps, c.warmup_steps);
  if (c.schedule != ScheduleKind::wsd || c.warmup_steps > steps) return;
  const std::int64_t decay = c.decay_steps > 0 ? c.decay_steps : steps / 10;
  rules.require(decay <= steps - c.warmup_steps, "optimizer.decay_steps",
                "optimizer.warmup_steps + decay_steps ({} + {}) must be at most train.steps ({})",
                c.warmup_steps, decay, steps);
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
  });
}

void check_data(Rules& rules, const DataConfig& c) {
  rules.require(!c.tokenizer.empty(), "data.tokenizer", "must not be empty");
  rules.require(!c.sources.empty(), "data.sources", "must list at least one source");
  std::set<std::string> names;
  bool trains = c.sources.empty();
  for (std::size_t i = 0; i < c.sources.size(); ++i) {
    const DataSource& source = c.sources[i];
    const std::string key = fmt::format("data.sources.{}.", i);
    trains = trains || source.weight > 0 || !rules.sound({key + "weight"});
    rules.require(is_plain_name(source.name), key + "name",
                  "must be letters, digits, '-' and '_', got '{}'", source.name);
    rules.require(names.insert(source.name).second, key + "name",
                  "'{}' names two sources; names must differ", source.name);
    rules.require(source.weight == 0 || !source.train.empty(), key + "train",
                  "must name a token store, as weight is not 0");
    rules.require(source.weight != 0 || !source.validation.empty(), key + "validation",
                  "must name a token store, as weight 0 takes part in evaluation only");
  }
  rules.require(trains, "data.sources", "no source has a weight above 0: nothing to train on");
}

}  // namespace

std::vector<ConfigFault> check(const RunConfig& run, int world_size) {
  RunConfig copy = run;
  RangeCheck ranges;
  visit_fields(ranges, copy);
  std::vector<ConfigFault> faults = ranges.take_faults();
  for (ConfigFault& fault : check(run.model)) {
    faults.push_back({"model." + fault.key, std::move(fault.message)});
  }
  Rules rules(std::move(faults));
  rules.require(!run.run_dir.empty(), "run_dir", "must not be empty");
  check_data(rules, run.data);
  check_batch(rules, run.train, world_size);
  check_schedule(rules, run.optimizer, run.train.steps);
  check_axes(rules, run.parallel);
  return rules.take();
}

}  // namespace jamba
