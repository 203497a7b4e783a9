#pragma once
// XXH3-128, the checksum of checkpoints: finds damage at memory speed, proves no origin.

#include <cstdint>
#include <string>

#include "kernels/core/handle.h"

struct XXH3_state_s;

namespace jamba {

/// Length of a hash as text: 32 lower-case hexadecimal digits.
inline constexpr std::size_t kHashDigits = 32;

void free_hash_state(XXH3_state_s* state);

/// Hashes a sequence of byte runs as if they were one.
class Hasher {
 public:
  Hasher();
  Hasher& add(const void* data, std::int64_t bytes);
  std::string hex() const;

 private:
  UniqueHandle<XXH3_state_s*, free_hash_state> state_;
};

std::string hash_bytes(const void* data, std::int64_t bytes);
/// Hash of an open file's whole content. Errors: IoError naming the path.
std::string hash_file(int fd, const std::string& path);

}  // namespace jamba
