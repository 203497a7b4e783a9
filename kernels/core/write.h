#pragma once

namespace jamba {

/// Whether an output is replaced or added to.
enum class Write { overwrite, accumulate };

}  // namespace jamba
