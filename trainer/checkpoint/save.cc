#include <vector>

#include "trainer/checkpoint/agreed.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/shard.h"
#include "trainer/checkpoint/snapshot.h"

namespace jamba {

namespace {

Shard write_shard(const std::string& root, std::int64_t step, int rank,
                  std::span<const StateSlice> slices) {
  std::vector<StateSlice> filled;
  for (const StateSlice& slice : slices) {
    if (slice_box(slice).numel() > 0) filled.push_back(slice);
  }
  if (filled.empty()) return {};
  ShardWriter writer(staging_path(root, step), step, rank);
  SnapshotReader snapshot(filled);
  while (const StateSlice* slice = snapshot.next()) writer.add(*slice);
  return writer.finish();
}

/// Every rank's shard, on all ranks.
std::vector<Shard> gather(Communicator& comm, const Shard& mine) {
  Stream stream = Stream::cpu(1);
  std::string text = mine.files.empty() ? "" : shard_to_text(mine);
  auto length = static_cast<std::int64_t>(text.size());
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(comm.size()));
  comm.all_gather(stream, Tensor(lengths.data(), DType::i64, {comm.size(), 1}),
                  Tensor(&length, DType::i64, {1}));
  std::vector<Shard> shards;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const std::int64_t bytes = lengths[static_cast<std::size_t>(rank)];
    if (bytes == 0) continue;
    std::string theirs =
        rank == comm.rank() ? text : std::string(static_cast<std::size_t>(bytes), ' ');
    comm.broadcast(stream, Tensor(theirs.data(), DType::u8, {bytes}), rank);
    shards.push_back(shard_from_text(theirs));
  }
  return shards;
}

}  // namespace

void save_checkpoint(Communicator& comm, const std::string& root, const CheckpointInfo& info,
                     std::span<const StateSlice> slices) {
  const bool first = comm.rank() == 0;
  try {
    agreed(comm, [&] {
      if (first) begin_checkpoint(root, info.step);
    });
    Shard mine;
    agreed(comm, [&] { mine = write_shard(root, info.step, comm.rank(), slices); });
    const std::vector<Shard> shards = gather(comm, mine);
    agreed(comm, [&] {
      if (first) commit_checkpoint(root, info, comm.size(), shards);
    });
  } catch (const Error& e) {
    // Otherwise the group is unusable, and what is left goes with the leftovers of the next start.
    if (e.on_all_ranks()) {
      if (first) discard_checkpoint(root, info.step);
      comm.barrier();  // no rank returns before the attempt is gone
    }
    throw;
  }
}

}  // namespace jamba
