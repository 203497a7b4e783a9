#include "trainer/checkpoint/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <new>
#include <vector>

#include "trainer/checkpoint/posix_file.h"

namespace jamba {

void free_hash_state(XXH3_state_s* state) { XXH3_freeState(state); }

Hasher::Hasher() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

Hasher& Hasher::add(const void* data, std::int64_t bytes) {
  XXH3_128bits_update(state_.get(), data, static_cast<std::size_t>(bytes));
  return *this;
}

std::string Hasher::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hash_bytes(const void* data, std::int64_t bytes) {
  return Hasher().add(data, bytes).hex();
}

std::string hash_file(int fd, const std::string& path) {
  constexpr std::int64_t kChunk = 1 << 20;
  std::vector<char> chunk(kChunk);
  const std::int64_t size = file_size(fd, path);
  Hasher hasher;
  for (std::int64_t at = 0; at < size; at += kChunk) {
    const std::int64_t bytes = std::min(kChunk, size - at);
    read_at(fd, path, at, chunk.data(), bytes);
    hasher.add(chunk.data(), bytes);
  }
  return hasher.hex();
}

}  // namespace jamba
