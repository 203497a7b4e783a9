#pragma once
// What a config file says, before anyone knows what it means: a tree with the place of every part.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace jamba::config {

/// Where something was written. `file` counts the loaded files, the main one first; line and
/// column count from 1, and 0 means the file as a whole.
struct Place {
  int file = 0;
  int line = 0;
  int column = 0;
};

struct Entry;

struct Node {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  Place place;
  std::string text;     // of a scalar
  bool quoted = false;  // a quoted scalar is text, never a number
  std::vector<Node> items;
  std::vector<Entry> entries;

  Entry* find(std::string_view name);
  const Entry* find(std::string_view name) const;
};

/// A key and its value in a map. Keys keep the order of the file and are unique.
struct Entry {
  std::string name;
  Place place;
  Node value;
};

/// "a list", "a section of keys", "nothing", or the quoted text: for "expected an integer, got
/// ...".
std::string kind_in_words(const Node&);

/// Lays `over` on top of `base`: maps are joined key by key, anything else is replaced. An empty
/// section on top changes nothing.
void merge(Node& base, Node over);

}  // namespace jamba::config
