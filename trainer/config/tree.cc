#include "trainer/config/tree.h"

#include <algorithm>

#include "trainer/config/scalars.h"

namespace jamba::config {

const Entry* Node::find(std::string_view name) const {
  const auto it = std::find_if(entries.begin(), entries.end(),
                               [&](const Entry& entry) { return entry.name == name; });
  return it == entries.end() ? nullptr : &*it;
}

Entry* Node::find(std::string_view name) {
  return const_cast<Entry*>(std::as_const(*this).find(name));
}

std::string kind_in_words(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a section of keys";
    case Node::Kind::scalar:
      return quote(node.text);
  }
  return {};
}

void merge(Node& base, Node over) {
  if (base.kind == Node::Kind::map && over.kind == Node::Kind::null) return;
  if (base.kind != Node::Kind::map || over.kind != Node::Kind::map) {
    base = std::move(over);
    return;
  }
  for (Entry& entry : over.entries) {
    if (Entry* known = base.find(entry.name)) {
      known->place = entry.place;
      merge(known->value, std::move(entry.value));
    } else {
      base.entries.push_back(std::move(entry));
    }
  }
}

}  // namespace jamba::config
