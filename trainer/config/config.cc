#include "trainer/config/config.h"

#include "trainer/config/reader.h"
#include "trainer/config/sources.h"
#include "trainer/config/yaml_tree.h"

namespace jamba {

namespace {

using config::FaultList;
using config::Place;
using config::Reader;
using config::Require;

/// The place of a key, or of the nearest section around it that was given.
Place place_of(const std::map<std::string, Place>& places, std::string key) {
  while (true) {
    if (const auto it = places.find(key); it != places.end()) return it->second;
    const std::size_t dot = key.rfind('.');
    if (dot == std::string::npos) return {};
    key.resize(dot);
  }
}

/// True if a fault was noted for the key or for a section around it.
bool is_faulty(const FaultList& faults, std::string key) {
  while (!faults.has(key)) {
    const std::size_t dot = key.rfind('.');
    if (dot == std::string::npos) return false;
    key.resize(dot);
  }
  return true;
}

/// Adds the broken rules, except those over values that could not be read.
void add_rules(const std::vector<ConfigFault>& broken, const std::string& prefix,
               const std::map<std::string, Place>& places, FaultList& faults) {
  const FaultList unread = faults;
  for (const ConfigFault& fault : broken) {
    const std::string key = prefix + fault.key;
    if (is_faulty(unread, key) || unread.mentions_faulty_key(fault.message)) continue;
    faults.add(place_of(places, key), key, fault.message);
  }
}

RunConfig load(const std::filesystem::path& path, std::span<const std::string> overrides,
               Require require, int world_size, ConfigOrigins* origins) {
  FaultList faults;
  std::optional<config::Node> root = config::load_files(path, faults);
  config::Node unread;
  const bool overridden = config::apply_overrides(root ? *root : unread, overrides, faults);
  if (!root || !overridden) faults.throw_if_any();

  RunConfig run;
  Reader reader(*root, require, faults);
  visit_fields(reader, run);
  reader.finish();
  if (require == Require::run) {
    add_rules(check(run, world_size), "", reader.places(), faults);
  } else {
    add_rules(check(run.model), "model.", reader.places(), faults);
  }
  faults.throw_if_any();
  if (origins) {
    for (const auto& [key, place] : reader.places()) (*origins)[key] = faults.describe(place);
  }
  return run;
}

}  // namespace

RunConfig load_run_config(const std::filesystem::path& path, std::span<const std::string> overrides,
                          int world_size, ConfigOrigins* origins) {
  return load(path, overrides, Require::run, world_size, origins);
}

RunConfig with_overrides(const RunConfig& base, std::span<const std::string> overrides) {
  FaultList faults;
  std::optional<config::Node> root =
      config::parse_yaml(to_yaml(base), faults.add_file("defaults"), faults);
  faults.throw_if_any();
  config::apply_overrides(*root, overrides, faults);
  RunConfig run;
  Reader reader(*root, Require::model, faults);
  visit_fields(reader, run);
  reader.finish();
  std::vector<ConfigFault> out_of_range = check_ranges(run);
  for (const ConfigFault& before : check_ranges(base)) {
    std::erase_if(out_of_range, [&](const ConfigFault& f) {
      return f.key == before.key && f.message == before.message;
    });
  }
  add_rules(out_of_range, "", reader.places(), faults);
  add_rules(check(run.model), "model.", reader.places(), faults);
  faults.throw_if_any();
  return run;
}

ModelConfig load_model_config(const std::filesystem::path& path) {
  return load(path, {}, Require::model, 0, nullptr).model;
}

}  // namespace jamba
