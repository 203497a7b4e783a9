#pragma once
// The process mesh as plain numbers: which rank stands where, and who shares a group with whom.

#include <cstdint>
#include <string>
#include <vector>

namespace jamba {

/// Degrees of the mesh, all at least 1. Ranks count with tp innermost, then cp, dp, and pp
/// outermost:
///   rank = ((pp_rank * dp + dp_rank) * cp + cp_rank) * tp + tp_rank.
/// Expert parallelism adds no ranks. With d = dp_rank * cp + cp_rank, the place among the ranks
/// that share dense parameters, ep_rank = d % ep and the copy of the experts is d / ep: ep is
/// carved out of cp first, then out of dp, and stays within a node as they do.
struct MeshShape {
  int dp = 1;
  int pp = 1;
  int cp = 1;
  int tp = 1;
  int ep = 1;  // divides dp * cp

  int world_size() const { return dp * pp * cp * tp; }
  /// Ranks that share the dense parameters of one (pp, tp).
  int data_size() const { return dp * cp; }
  /// Copies of each expert.
  int expert_data() const { return data_size() / ep; }
  friend bool operator==(const MeshShape&, const MeshShape&) = default;
};

/// A rank's index within its group of each axis.
struct MeshCoordinates {
  int pp = 0;
  int dp = 0;
  int cp = 0;
  int tp = 0;
  int data = 0;  // dp * mesh.cp + cp
  int ep = 0;
  int expert_data = 0;
  friend bool operator==(const MeshCoordinates&, const MeshCoordinates&) = default;
};

/// Kinds of groups. `data` is dp and cp together; ep and expert_data are its two factors.
enum class Axis { tp, cp, dp, pp, data, ep, expert_data };
inline constexpr int kNumAxes = 7;
const char* axis_name(Axis axis);

/// Errors of these: LogicError if the mesh is not sound or has no such rank.
MeshCoordinates coordinates(const MeshShape& mesh, int rank);
int rank_of(const MeshShape& mesh, int pp_rank, int dp_rank, int cp_rank, int tp_rank);

/// The color for Communicator::split: the smallest rank of `rank`'s group, so that equal color
/// means the same group. Ranks of a group ascend with their coordinate on the axis.
int color(const MeshShape& mesh, Axis axis, int rank);

/// The degrees that a user asks for; dp is what remains. Any numbers.
struct MeshDegrees {
  std::int64_t tp = 1;
  std::int64_t pp = 1;
  std::int64_t cp = 1;
  std::int64_t ep = 1;
};

/// A broken rule: the config key ("parallel.tp") and what is wrong, ending with the nearest degrees
/// that would do.
struct MeshFault {
  std::string key;
  std::string message;
};

/// Every rule that the degrees break on `world_size` (at least 1) ranks; empty if they are sound:
/// each at least 1, tp * pp * cp divides world_size, ep divides dp * cp.
std::vector<MeshFault> check_mesh(int world_size, const MeshDegrees&);

/// The mesh of sound degrees. Errors: LogicError if check_mesh has something to say.
MeshShape resolve_mesh(int world_size, const MeshDegrees&);

/// What a run prints at its start: of every axis its degree, stride, first group, and whether all
/// its groups stay within a node, with nodes holding consecutive `ranks_a_node` ranks; up to 8
/// ranks, also their coordinates.
std::string mesh_table(const MeshShape& mesh, int ranks_a_node);

}  // namespace jamba
