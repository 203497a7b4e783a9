// Seconds of all_reduce and all_to_all by size, and of MPI_Iallreduce beside them.
// Usage: scripts/launch -n 2 -- build/release/bench_comm
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "parallel/comm/mpi_check.h"  // IWYU pragma: keep: MPI itself
#include "parallel/comm/mpi_session.h"

namespace jamba {
namespace {

double median_us(Communicator& world, int repeats, const auto& operation) {
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 3; ++i) {
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    operation();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::ranges::sort(seconds);
  return 1e6 * seconds[seconds.size() / 2];
}

/// In pieces of 65536 elements, all in flight at once.
void mpi_all_reduce(std::vector<float>& x) {
  std::vector<MPI_Request> requests;
  for (std::size_t begin = 0; begin < x.size(); begin += 65536) {
    const auto count = static_cast<int>(std::min<std::size_t>(65536, x.size() - begin));
    MPI_Iallreduce(MPI_IN_PLACE, x.data() + begin, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                   &requests.emplace_back());
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

void measure(Communicator& world, std::int64_t bytes) {
  Stream stream = Stream::cpu();
  const std::int64_t n = bytes / 4 / world.size() * world.size();
  std::vector<float> x(static_cast<std::size_t>(n), 1e-9f);
  std::vector<float> out(x.size());
  const Tensor view(x.data(), DType::f32, {n});
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(world.size()), n / world.size());
  const int repeats = bytes > 4000000 ? 30 : 200;
  const double ours = median_us(world, repeats, [&] { world.all_reduce(stream, view); });
  const double theirs = median_us(world, repeats, [&] { mpi_all_reduce(x); });
  const double all_to_all = median_us(world, repeats, [&] {
    world.all_to_all(stream, Tensor(out.data(), DType::f32, {n}), view, rows, rows);
  });
  if (world.rank() != 0) return;
  std::printf("%9ld bytes: all_reduce %8.1f us, MPI_Iallreduce %8.1f us, all_to_all %8.1f us\n",
              static_cast<long>(bytes), ours, theirs, all_to_all);
}

}  // namespace
}  // namespace jamba

int main(int argc, char** argv) {
  jamba::MpiSession session(argc, argv);
  for (const std::int64_t bytes : {1 << 10, 64 << 10, 2 << 20, 16 << 20}) {
    jamba::measure(session.world(), bytes);
  }
  return 0;
}
