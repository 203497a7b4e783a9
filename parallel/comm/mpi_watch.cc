#include "parallel/comm/mpi_watch.h"

#include <sched.h>

#include <algorithm>
#include <map>
#include <new>

namespace jamba {

namespace {

constexpr std::chrono::milliseconds kBetweenLooks(20);
constexpr std::chrono::milliseconds kTimeToAnswer(500);

/// Where a rank waits. Plain data: it travels as bytes.
struct Place {
  bool is_message;
  std::int64_t number;
  char axis[24];
  char text[104];
};

using Places = std::map<int, Place>;  // by world rank

Place place_of(const MpiGroup& group, const Operation& op) {
  Place place{.is_message = op.is_message(), .number = op.number, .axis = {}, .text = {}};
  group.ranks.axis().copy(place.axis, sizeof(place.axis) - 1);
  op.describe().copy(place.text, sizeof(place.text) - 1);
  return place;
}

bool same(const Place& a, const Place& b) {
  return a.is_message == b.is_message && a.number == b.number && std::string_view(a.axis) == b.axis;
}

int count(MPI_Comm comm) {
  int size = 0;
  JAMBA_MPI_CHECK(MPI_Comm_size(comm, &size), "counting ranks");
  return size;
}

bool anyone_speaks(MpiFamily& family) {
  int found = 0;
  JAMBA_MPI_CHECK(MPI_Iprobe(MPI_ANY_SOURCE, 0, family.diagnosis, &found, MPI_STATUS_IGNORE),
                  "looking for ranks that wait too long");
  return found != 0;
}

/// `place` must live as long as the process: nobody waits until it has been read.
void tell_all(MpiFamily& family, const Place& place) {
  int rank = 0;
  JAMBA_MPI_CHECK(MPI_Comm_rank(family.diagnosis, &rank), "finding this rank");
  for (int peer = 0; peer < count(family.diagnosis); ++peer) {
    if (peer == rank) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    JAMBA_MPI_CHECK(MPI_Isend(&place, sizeof(place), MPI_BYTE, peer, 0, family.diagnosis, &request),
                    "telling rank {} of a wait", peer);
    MPI_Request_free(&request);
  }
}

void hear(MpiFamily& family, Places& places) {
  while (anyone_speaks(family)) {
    Place place{};
    MPI_Status status;
    JAMBA_MPI_CHECK(
        MPI_Recv(&place, sizeof(place), MPI_BYTE, MPI_ANY_SOURCE, 0, family.diagnosis, &status),
        "hearing where ranks wait");
    places[status.MPI_SOURCE] = place;
  }
}

/// The ranks of all ranks, by rank of the group.
std::vector<int> world_ranks(const MpiGroup& group) {
  std::vector<int> ranks(static_cast<std::size_t>(group.ranks.size()));
  std::vector<int> result(ranks.size());
  for (int i = 0; i < group.ranks.size(); ++i) ranks[static_cast<std::size_t>(i)] = i;
  MPI_Group part = MPI_GROUP_NULL;
  MPI_Group all = MPI_GROUP_NULL;
  JAMBA_MPI_CHECK(MPI_Comm_group(group.comm, &part), "naming ranks");
  JAMBA_MPI_CHECK(MPI_Comm_group(group.family.diagnosis, &all), "naming ranks");
  JAMBA_MPI_CHECK(
      MPI_Group_translate_ranks(part, group.ranks.size(), ranks.data(), all, result.data()),
      "naming ranks");
  MPI_Group_free(&part);
  MPI_Group_free(&all);
  return result;
}

/// Those of `ranks` that are elsewhere, each with what is known of it.
std::vector<std::string> missing_names(const std::vector<int>& ranks, const std::vector<int>& world,
                                       const Places& places, const Place& here) {
  std::vector<std::string> names;
  for (const int rank : ranks) {
    const int world_rank = world[static_cast<std::size_t>(rank)];
    const auto found = places.find(world_rank);
    if (found != places.end() && same(found->second, here)) continue;
    const std::string known =
        found == places.end() ? "silent"
                              : fmt::format("last seen: {} over {}, number {}", found->second.text,
                                            found->second.axis, found->second.number);
    const std::string who = rank == world_rank ? "" : fmt::format("world rank {}, ", world_rank);
    names.push_back(fmt::format("rank {} ({}{})", rank, who, known));
  }
  return names;
}

}  // namespace

MpiWatch::MpiWatch(const MpiGroup& group, MpiOperation& operation)
    : group_(group),
      operation_(operation),
      timeout_seconds_(group.ranks.guards().timeout_seconds),
      begin_(timeout_seconds_ > 0 ? Clock::now() : Clock::time_point{}),
      next_look_(begin_ + kBetweenLooks) {}

double MpiWatch::waited_seconds() const { return seconds_since(begin_); }

void MpiWatch::check() {
  if (timeout_seconds_ <= 0 || Clock::now() < next_look_) return;
  next_look_ = Clock::now() + kBetweenLooks;
  if (waited_seconds() > timeout_seconds_ || anyone_speaks(group_.family)) fail();
}

void MpiWatch::fail() {
  const double seconds = waited_seconds();
  const std::vector<int> ranks = operation_.waiting_for();
  const std::vector<int> world = world_ranks(group_);
  Buffer& kept = group_.family.lost.emplace_back(sizeof(Place));
  const Place& here = *new (kept.data()) Place(place_of(group_, operation_.operation()));
  tell_all(group_.family, here);

  Places places;
  const auto until = Clock::now() + kTimeToAnswer;
  const auto all_known = [&] {
    return std::ranges::all_of(
        ranks, [&](int rank) { return places.contains(world[static_cast<std::size_t>(rank)]); });
  };
  while (Clock::now() < until && !all_known()) {
    hear(group_.family, places);
    sched_yield();
  }
  throw CommError(timeout_message(operation_.operation(), group_.ranks.axis(), seconds,
                                  missing_names(ranks, world, places, here)));
}

}  // namespace jamba
