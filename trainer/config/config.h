#pragma once
// Config files: YAML to the structs that other folders own, and back.

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace jamba {

/// Where each given key stands, "train.yaml:14:3" or "override", by its path ("train.steps").
/// Keys that keep their default are absent.
using ConfigOrigins = std::map<std::string, std::string>;

/// Reads a run's config: the file, what it includes (`include: [...]` at the top, relative to the
/// file; the including file's keys win), then `key.path=value` overrides.
/// Integers may be written 1_000, 1e6, 4k (1000), 2Mi (1024^2). Data paths in the config are
/// relative to the working directory.
/// world_size: the number of ranks, for rules over it; <= 0: not known yet.
/// Errors: NoInputError if the file does not exist; ConfigError that lists every fault, one a
/// line: `file:line:column: key: what; did you mean 'x'?`.
RunConfig load_run_config(const std::filesystem::path&, std::span<const std::string> overrides,
                          int world_size = 0, ConfigOrigins* origins = nullptr);

/// The model of a config file; the keys that only a run needs may be missing. Errors: as above.
ModelConfig load_model_config(const std::filesystem::path&);

/// A config with `key.path=value` overrides on top. Only the rules of single keys and of the model
/// are checked; what is missing or out of range in the base may stay so. Errors: ConfigError that
/// lists every fault.
RunConfig with_overrides(const RunConfig&, std::span<const std::string> overrides);

/// Every key with its value, as a JSON object. Two configs are equal if their JSON is.
std::string to_json(const RunConfig&);

/// What differs between two configs as to_json gives them, one line a key: "optimizer.lr: 0.001,
/// was 0.002". Text that is no JSON object counts as a config without keys.
std::vector<std::string> config_changes(const std::string& before, const std::string& now);

/// Every key with its value, meaning, range and, where given, origin, as YAML that
/// load_run_config reads back to the same config.
std::string to_yaml(const RunConfig&, const ConfigOrigins& = {});

}  // namespace jamba
