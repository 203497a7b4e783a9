#include "parallel/mesh_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "kernels/core/errors.h"

namespace jamba {
namespace {

using ::testing::HasSubstr;

constexpr Axis kAxes[] = {Axis::tp,   Axis::cp, Axis::dp,         Axis::pp,
                          Axis::data, Axis::ep, Axis::expert_data};

/// Every mesh of up to 16 ranks.
std::vector<MeshShape> all_meshes() {
  std::vector<MeshShape> meshes;
  for (int world = 1; world <= 16; ++world) {
    for (int tp = 1; tp <= world; ++tp) {
      for (int pp = 1; pp <= world; ++pp) {
        for (int cp = 1; cp <= world; ++cp) {
          if (world % (tp * pp * cp) != 0) continue;
          const int dp = world / (tp * pp * cp);
          for (int ep = 1; ep <= dp * cp; ++ep) {
            if (dp * cp % ep == 0) meshes.push_back({dp, pp, cp, tp, ep});
          }
        }
      }
    }
  }
  return meshes;
}

/// The coordinate on the axis, and the degree, as the contract words them.
int coordinate(const MeshCoordinates& c, Axis axis) {
  switch (axis) {
    case Axis::tp:
      return c.tp;
    case Axis::cp:
      return c.cp;
    case Axis::dp:
      return c.dp;
    case Axis::pp:
      return c.pp;
    case Axis::data:
      return c.data;
    case Axis::ep:
      return c.ep;
    case Axis::expert_data:
      break;
  }
  return c.expert_data;
}

int degree(const MeshShape& m, Axis axis) {
  switch (axis) {
    case Axis::tp:
      return m.tp;
    case Axis::cp:
      return m.cp;
    case Axis::dp:
      return m.dp;
    case Axis::pp:
      return m.pp;
    case Axis::data:
      return m.dp * m.cp;
    case Axis::ep:
      return m.ep;
    case Axis::expert_data:
      break;
  }
  return m.dp * m.cp / m.ep;
}

/// Whether two ranks that differ on the axis only share a group: the coordinates that must agree.
std::vector<int> fixed_coordinates(const MeshCoordinates& c, Axis axis) {
  switch (axis) {
    case Axis::tp:
      return {c.pp, c.dp, c.cp};
    case Axis::cp:
      return {c.pp, c.dp, c.tp};
    case Axis::dp:
      return {c.pp, c.cp, c.tp};
    case Axis::pp:
      return {c.dp, c.cp, c.tp};
    case Axis::data:
      return {c.pp, c.tp};
    case Axis::ep:
      return {c.pp, c.tp, c.expert_data};
    case Axis::expert_data:
      break;
  }
  return {c.pp, c.tp, c.ep};
}

TEST(MeshShape, CoordinatesAndRanksAreEachOthersInverse) {
  for (const MeshShape& m : all_meshes()) {
    int rank = 0;
    for (int pp = 0; pp < m.pp; ++pp) {
      for (int dp = 0; dp < m.dp; ++dp) {
        for (int cp = 0; cp < m.cp; ++cp) {
          for (int tp = 0; tp < m.tp; ++tp, ++rank) {
            const int data = dp * m.cp + cp;
            EXPECT_EQ(rank_of(m, pp, dp, cp, tp), rank);
            EXPECT_EQ(coordinates(m, rank),
                      (MeshCoordinates{pp, dp, cp, tp, data, data % m.ep, data / m.ep}));
          }
        }
      }
    }
    EXPECT_EQ(rank, m.world_size());
    EXPECT_EQ(m.expert_data() * m.ep, m.data_size());
  }
}

TEST(MeshShape, GroupsPartitionTheWorldAndAscendWithTheCoordinate) {
  for (const MeshShape& m : all_meshes()) {
    for (const Axis axis : kAxes) {
      std::map<int, std::vector<int>> groups;
      for (int rank = 0; rank < m.world_size(); ++rank) {
        groups[color(m, axis, rank)].push_back(rank);
      }
      EXPECT_EQ(static_cast<int>(groups.size()) * degree(m, axis), m.world_size());
      for (const auto& [smallest, ranks] : groups) {
        EXPECT_EQ(smallest, ranks.front());
        ASSERT_EQ(static_cast<int>(ranks.size()), degree(m, axis));
        for (int i = 0; i < degree(m, axis); ++i) {
          const MeshCoordinates c = coordinates(m, ranks[i]);
          EXPECT_EQ(coordinate(c, axis), i);
          EXPECT_EQ(fixed_coordinates(c, axis), fixed_coordinates(coordinates(m, smallest), axis));
        }
      }
    }
  }
}

TEST(MeshShape, ExpertGroupsLieInDataGroupsAndTensorNeighboursAreAdjacent) {
  for (const MeshShape& m : all_meshes()) {
    for (int rank = 0; rank < m.world_size(); ++rank) {
      for (const Axis inner : {Axis::cp, Axis::dp, Axis::ep, Axis::expert_data}) {
        const int first = color(m, inner, rank);
        EXPECT_EQ(color(m, Axis::data, rank), color(m, Axis::data, first));
      }
      EXPECT_EQ(color(m, Axis::tp, rank), rank / m.tp * m.tp);
      // ep fills cp before it takes from dp.
      if (m.cp % m.ep == 0) {
        EXPECT_EQ(color(m, Axis::cp, color(m, Axis::ep, rank)), color(m, Axis::cp, rank));
      }
    }
  }
}

TEST(MeshShape, RefusesWhatIsNoMeshOrNotInIt) {
  const MeshShape m{.dp = 2, .pp = 3, .cp = 2, .tp = 2, .ep = 4};
  EXPECT_THROW(coordinates(m, 24), LogicError);
  EXPECT_THROW(coordinates(m, -1), LogicError);
  EXPECT_THROW(color(m, Axis::tp, 24), LogicError);
  EXPECT_THROW(rank_of(m, 3, 0, 0, 0), LogicError);
  EXPECT_THROW(rank_of(m, 0, 2, 0, 0), LogicError);
  EXPECT_THROW(rank_of(m, 0, 0, 2, 0), LogicError);
  EXPECT_THROW(rank_of(m, 0, 0, 0, 2), LogicError);
  EXPECT_THROW(rank_of(m, 0, 0, 0, -1), LogicError);
  EXPECT_THROW(color({.dp = 2, .ep = 3}, Axis::ep, 0), LogicError);
  EXPECT_THROW(mesh_table({.dp = 0}, 1), LogicError);
  EXPECT_THROW(mesh_table({}, 0), LogicError);
}

TEST(MeshTable, ShowsAxesAndFewRanks) {
  EXPECT_EQ(mesh_table({.dp = 1, .pp = 2, .cp = 2, .tp = 2, .ep = 2}, 4),
            R"(axis         degree  stride  first group  within a node
tp                2       1  0 1          yes
cp                2       2  0 2          yes
dp                1       4  0            yes
pp                2       4  0 4          no
data              2       2  0 2          yes
ep                2       2  0 2          yes
expert data       1       4  0            yes

rank  pp  dp  cp  tp  data  ep  expert data
   0   0   0   0   0     0   0            0
   1   0   0   0   1     0   0            0
   2   0   0   1   0     1   1            0
   3   0   0   1   1     1   1            0
   4   1   0   0   0     0   0            0
   5   1   0   0   1     0   0            0
   6   1   0   1   0     1   1            0
   7   1   0   1   1     1   1            0
)");
}

TEST(MeshTable, AGroupMayCrossNodesWhereTheFirstDoesNot) {
  // The tp groups are ranks 0 1, 2 3 and 4 5; nodes hold ranks 0 to 2 and 3 to 5.
  EXPECT_THAT(mesh_table({.dp = 3, .tp = 2}, 3),
              HasSubstr("tp                2       1  0 1          no\n"));
}

TEST(MeshTable, ShortensLongGroupsAndLeavesOutManyRanks) {
  EXPECT_EQ(mesh_table({.dp = 16, .tp = 8, .ep = 8}, 8),
            R"(axis         degree  stride  first group            within a node
tp                8       1  0 1 2 3 4 5 6 7        yes
cp                1       8  0                      yes
dp               16       8  0 8 16 ... 120         no
pp                1     128  0                      yes
data             16       8  0 8 16 ... 120         no
ep                8       8  0 8 16 24 32 40 48 56  no
expert data       2      64  0 64                   no
)");
}

}  // namespace
}  // namespace jamba
