#include "parallel/comm/communicator.h"

namespace jamba {

Agreement agree(Communicator& group, int exit_code, const std::string& message) {
  Stream stream = Stream::cpu();
  std::int64_t mine[2] = {exit_code, static_cast<std::int64_t>(message.size())};
  std::vector<std::int64_t> all(2 * static_cast<std::size_t>(group.size()));
  group.all_gather(stream, Tensor(all.data(), DType::i64, {group.size(), 2}),
                   Tensor(mine, DType::i64, {2}));

  Agreement result;
  for (int rank = 0; rank < group.size(); ++rank) {
    const std::size_t at = 2 * static_cast<std::size_t>(rank);
    if (all[at] == 0) continue;
    result.rank = rank;
    result.exit_code = static_cast<int>(all[at]);
    result.message = rank == group.rank() ? message : std::string(all[at + 1], '\0');
    group.broadcast(stream, Tensor(result.message.data(), DType::u8, {all[at + 1]}), rank);
    break;
  }
  return result;
}

}  // namespace jamba
