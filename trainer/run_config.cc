#include "trainer/run_config.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "kernels/core/errors.h"
#include "trainer/config/fields.h"
#include "trainer/parallel_rules.h"

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

  bool empty() const { return faults_.empty(); }
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

std::vector<ConfigFault> check_ranges(const RunConfig& run) {
  RunConfig copy = run;
  RangeCheck ranges;
  visit_fields(ranges, copy);
  return ranges.take_faults();
}

std::vector<ConfigFault> check(const RunConfig& run, int world_size) {
  std::vector<ConfigFault> faults = check_ranges(run);
  for (ConfigFault& fault : check(run.model)) {
    faults.push_back({"model." + fault.key, std::move(fault.message)});
  }
  Rules rules(std::move(faults));
  rules.require(!run.run_dir.empty(), "run_dir", "must not be empty");
  check_data(rules, run.data);
  check_schedule(rules, run.optimizer, run.train.steps);
  if (rules.empty()) return check_parallel(run, world_size);
  return rules.take();
}

}  // namespace jamba
