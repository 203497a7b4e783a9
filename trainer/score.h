#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/model/jamba.h"
#include "trainer/model/workspace.h"

namespace jamba {

/// Natural-log probability of each token after the first, given those before it. The sequence is
/// one document. Empty for sequences of fewer than two tokens.
/// Errors: DataError naming the position of a token outside the vocabulary.
std::vector<float> score_tokens(Workspace&, const JambaModel&, JambaModel::Saved&,
                                std::span<const std::int64_t> ids);

}  // namespace jamba
