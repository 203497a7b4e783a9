#include "kernels/core/errors.h"

namespace jamba {

void fail_check(const char* file, int line, const char* condition, const std::string& message) {
  throw LogicError(fmt::format("{}:{}: check failed: {}{}{}", file, line, condition,
                               message.empty() ? "" : ": ", message));
}

}  // namespace jamba
