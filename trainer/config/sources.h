#pragma once
// Where a config comes from: a file, the files it includes, and the command line.

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "trainer/config/faults.h"
#include "trainer/config/tree.h"

namespace jamba::config {

/// Reads a file with everything it includes; keys of the including file win. Nothing is returned
/// where a file could not be read as a whole; the faults then say why.
/// `include: [a.yaml, b.yaml]` at the top level takes paths relative to the including file, later
/// ones on top of earlier ones.
/// Errors: NoInputError if the file itself does not exist.
std::optional<Node> load_files(const std::filesystem::path&, FaultList&);

/// Lays `key.path=value` settings on top of the tree, the last one on top. A number in the path is
/// an item of a list. Values are YAML. Returns false where one could not be read.
bool apply_overrides(Node& root, std::span<const std::string> overrides, FaultList&);

}  // namespace jamba::config
