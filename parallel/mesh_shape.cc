#include "parallel/mesh_shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

constexpr std::array<Axis, kNumAxes> kAxes = {Axis::tp,   Axis::cp, Axis::dp,         Axis::pp,
                                              Axis::data, Axis::ep, Axis::expert_data};
constexpr int kMaxListedRanks = 8;

/// Ranks of a group: `degree` of them, `stride` apart.
struct AxisLayout {
  const char* name;
  int degree;
  int stride;
};

AxisLayout layout_of(const MeshShape& m, Axis axis) {
  switch (axis) {
    case Axis::tp:
      return {"tp", m.tp, 1};
    case Axis::cp:
      return {"cp", m.cp, m.tp};
    case Axis::dp:
      return {"dp", m.dp, m.tp * m.cp};
    case Axis::pp:
      return {"pp", m.pp, m.tp * m.cp * m.dp};
    case Axis::data:
      return {"data", m.data_size(), m.tp};
    case Axis::ep:
      return {"ep", m.ep, m.tp};
    case Axis::expert_data:
      break;
  }
  return {"expert data", m.expert_data(), m.tp * m.ep};
}

int coordinate(const MeshShape& mesh, Axis axis, int rank) {
  const AxisLayout layout = layout_of(mesh, axis);
  return rank / layout.stride % layout.degree;
}

void check_sound(const MeshShape& m) {
  JAMBA_CHECK(std::min({m.dp, m.pp, m.cp, m.tp, m.ep}) >= 1 && m.data_size() % m.ep == 0,
              "no mesh: dp {}, pp {}, cp {}, tp {}, ep {}", m.dp, m.pp, m.cp, m.tp, m.ep);
}

void check_rank(const MeshShape& mesh, int rank) {
  check_sound(mesh);
  JAMBA_CHECK(0 <= rank && rank < mesh.world_size(), "rank {} of {}", rank, mesh.world_size());
}

bool within_nodes(const MeshShape& mesh, Axis axis, int ranks_a_node) {
  for (int rank = 0; rank < mesh.world_size(); ++rank) {
    if (rank / ranks_a_node != color(mesh, axis, rank) / ranks_a_node) return false;
  }
  return true;
}

/// "0 2 4 6", or "0 2 4 ... 62".
std::string group_of_rank_0(const AxisLayout& layout) {
  const bool all = layout.degree <= kMaxListedRanks;
  std::string text = "0";
  for (int i = 1; i < (all ? layout.degree : 3); ++i) text += fmt::format(" {}", i * layout.stride);
  if (!all) text += fmt::format(" ... {}", (layout.degree - 1) * layout.stride);
  return text;
}

std::string table_of_ranks(const MeshShape& mesh) {
  std::string text = "\nrank  pp  dp  cp  tp  data  ep  expert data\n";
  for (int rank = 0; rank < mesh.world_size(); ++rank) {
    const MeshCoordinates c = coordinates(mesh, rank);
    text += fmt::format("{:4}{:4}{:4}{:4}{:4}{:6}{:4}{:13}\n", rank, c.pp, c.dp, c.cp, c.tp, c.data,
                        c.ep, c.expert_data);
  }
  return text;
}

}  // namespace

MeshCoordinates coordinates(const MeshShape& mesh, int rank) {
  check_rank(mesh, rank);
  const auto on = [&](Axis axis) { return coordinate(mesh, axis, rank); };
  return {.pp = on(Axis::pp),
          .dp = on(Axis::dp),
          .cp = on(Axis::cp),
          .tp = on(Axis::tp),
          .data = on(Axis::data),
          .ep = on(Axis::ep),
          .expert_data = on(Axis::expert_data)};
}

int rank_of(const MeshShape& mesh, int pp_rank, int dp_rank, int cp_rank, int tp_rank) {
  check_sound(mesh);
  const auto within = [](int index, int degree) { return 0 <= index && index < degree; };
  JAMBA_CHECK(within(pp_rank, mesh.pp) && within(dp_rank, mesh.dp) && within(cp_rank, mesh.cp) &&
                  within(tp_rank, mesh.tp),
              "no place pp {}, dp {}, cp {}, tp {} in the mesh", pp_rank, dp_rank, cp_rank,
              tp_rank);
  return ((pp_rank * mesh.dp + dp_rank) * mesh.cp + cp_rank) * mesh.tp + tp_rank;
}

int color(const MeshShape& mesh, Axis axis, int rank) {
  check_rank(mesh, rank);
  return rank - coordinate(mesh, axis, rank) * layout_of(mesh, axis).stride;
}

std::string mesh_table(const MeshShape& mesh, int ranks_a_node) {
  check_sound(mesh);
  JAMBA_CHECK(ranks_a_node >= 1, "{} ranks a node", ranks_a_node);
  std::size_t width = 11;
  for (const Axis axis : kAxes) {
    width = std::max(width, group_of_rank_0(layout_of(mesh, axis)).size());
  }
  std::string text =
      fmt::format("axis         degree  stride  {:{}}  within a node\n", "first group", width);
  for (const Axis axis : kAxes) {
    const AxisLayout layout = layout_of(mesh, axis);
    text += fmt::format("{:11}{:8}{:8}  {:{}}  {}\n", layout.name, layout.degree, layout.stride,
                        group_of_rank_0(layout), width,
                        within_nodes(mesh, axis, ranks_a_node) ? "yes" : "no");
  }
  if (mesh.world_size() <= kMaxListedRanks) text += table_of_ranks(mesh);
  return text;
}

const char* axis_name(Axis axis) { return layout_of({}, axis).name; }

}  // namespace jamba
