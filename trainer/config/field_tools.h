#pragma once
// What the parts of the table of keys share.

#include <initializer_list>
#include <string_view>
#include <vector>

#include "trainer/config/fields.h"

namespace jamba::config {

inline constexpr IntegerRange kCount{.low = 1};
inline constexpr IntegerRange kCountOrNone{.low = 0};
inline constexpr RealRange kNotNegative{};
inline constexpr RealRange kPositive{.low_end = End::open};
inline constexpr RealRange kBelowOne{.high = 1, .high_end = End::open};

/// One value of an enum and its name in files.
template <class E>
struct Named {
  std::string_view name;
  E value;
};

template <class E>
void choice(FieldVisitor& visitor, const Key& key, E& value,
            std::initializer_list<Named<E>> named) {
  std::vector<std::string_view> names;
  std::size_t index = 0;
  for (const Named<E>& one : named) {
    if (one.value == value) index = names.size();
    names.push_back(one.name);
  }
  visitor.choice(key, index, names);
  value = (named.begin() + index)->value;
}

/// The keys of the section `model`.
void visit_model(FieldVisitor&, ModelConfig&);

}  // namespace jamba::config
