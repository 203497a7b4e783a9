#include "trainer/step_trace.h"

#include <fstream>
#include <vector>

#include "kernels/core/errors.h"
#include "trainer/checkpoint/agreed.h"

namespace jamba {

void StepTrace::begin(Stream& stream) { stream.profile().trace = &trace_; }

void StepTrace::finish(Stream& stream, Communicator& world) {
  stream.profile().trace = nullptr;
  std::string mine = chrome_events(trace_, world.rank());
  auto size = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(world.size()));
  world.all_gather(stream, Tensor(sizes.data(), DType::i64, {world.size()}),
                   Tensor(&size, DType::i64, {1}));
  std::string all;
  for (int rank = 0; rank < world.size(); ++rank) {
    std::string text(static_cast<std::size_t>(sizes[static_cast<std::size_t>(rank)]), ' ');
    if (rank == world.rank()) text = mine;
    world.broadcast(stream, Tensor(text.data(), DType::u8, {std::ssize(text)}), rank);
    if (!text.empty()) all += (all.empty() ? "" : ",\n") + text;
  }
  agreed(world, [&] {
    if (world.rank() != 0) return;
    std::ofstream out(path_, std::ios::binary);
    out << "[\n" << all << "\n]\n";
    out.close();
    if (!out) throw IoError(fmt::format("cannot write the trace {}", path_));
  });
}

}  // namespace jamba
