#pragma once
// The only door to yaml-cpp: text to a tree of nodes with places.

#include <optional>
#include <string>

#include "trainer/config/faults.h"
#include "trainer/config/tree.h"

namespace jamba::config {

/// Reads one YAML document. Faults are added for syntax errors, duplicate keys (with both places),
/// anchors, aliases, merge keys, tags, keys that are no plain text, a second document, text that is
/// no UTF-8, and nesting beyond 32 levels; reading goes on where it can, and nothing is returned
/// where it cannot. An empty document is a null node.
/// file: the number of the source in `faults`.
std::optional<Node> parse_yaml(const std::string& text, int file, FaultList& faults);

/// The same for the value of one key, from a source without lines.
std::optional<Node> parse_yaml_value(const std::string& text, int file, const std::string& key,
                                     FaultList& faults);

}  // namespace jamba::config
