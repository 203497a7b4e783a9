#pragma once
// Output files that appear whole or not at all.

#include <string>

namespace jamba {

/// The path to write under: `path` + ".partial", without what a stopped run may have left there.
/// Errors: CannotCreateError if `path` exists.
std::string claim_output(const std::string& path);

/// Makes the closed file at `partial` durable and renames it to `path`. Errors: IoError.
void publish_output(const std::string& partial, const std::string& path);

}  // namespace jamba
