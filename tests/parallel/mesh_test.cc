#include "parallel/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/errors.h"
#include "parallel/comm/thread_group.h"

namespace jamba {
namespace {

using ::testing::ElementsAre;

using Members = std::vector<std::int64_t>;  // world ranks, by rank in the group

Members members(const Mesh& mesh, Communicator& group) {
  Stream stream = Stream::cpu(1);
  Members all(static_cast<std::size_t>(group.size()));
  std::int64_t mine = mesh.world().rank();
  group.all_gather(stream, Tensor(all.data(), DType::i64, {group.size()}),
                   Tensor(&mine, DType::i64, {1}));
  EXPECT_EQ(all[static_cast<std::size_t>(group.rank())], mine);
  return all;
}

struct Groups {
  Members tp, cp, pp, dp, data, ep, expert_data, kv, ends;
};

Groups groups_of(const Mesh& m) {
  return {members(m, m.tp()),          members(m, m.cp()),   members(m, m.pp()),
          members(m, m.dp()),          members(m, m.data()), members(m, m.ep()),
          members(m, m.expert_data()), members(m, m.kv()),   members(m, m.ends())};
}

/// Runs the mesh and gives the groups of every rank.
std::vector<Groups> all_groups(const MeshShape& shape, int kv_copies = 1) {
  std::vector<Groups> result(static_cast<std::size_t>(shape.world_size()));
  run_ranks(shape.world_size(), [&](Communicator& world) {
    const Mesh mesh(world, shape, kv_copies);
    EXPECT_EQ(&mesh.world(), &world);
    EXPECT_EQ(mesh.shape(), shape);
    EXPECT_EQ(mesh.at(), coordinates(shape, world.rank()));
    result[static_cast<std::size_t>(world.rank())] = groups_of(mesh);
  });
  return result;
}

TEST(Mesh, OfReplicasStagesAndTensorRanks) {
  const std::vector<Groups> of = all_groups({.dp = 2, .pp = 2, .tp = 2});
  EXPECT_EQ(of[0].tp, (Members{0, 1}));
  EXPECT_EQ(of[0].dp, (Members{0, 2}));
  EXPECT_EQ(of[0].pp, (Members{0, 4}));
  EXPECT_EQ(of[7].tp, (Members{6, 7}));
  EXPECT_EQ(of[7].dp, (Members{5, 7}));
  EXPECT_EQ(of[7].pp, (Members{3, 7}));
  EXPECT_EQ(of[5].data, (Members{5, 7}));
  EXPECT_EQ(of[5].expert_data, (Members{5, 7}));
  EXPECT_EQ(of[5].ends, (Members{1, 5}));
  EXPECT_EQ(of[5].cp, (Members{5}));
  EXPECT_EQ(of[5].ep, (Members{5}));
  EXPECT_EQ(of[5].kv, (Members{5}));
}

TEST(Mesh, OfExpertsAcrossContextAndReplicas) {
  const std::vector<Groups> of = all_groups({.dp = 2, .cp = 2, .ep = 4});
  for (const std::size_t rank : {0U, 3U}) {
    EXPECT_EQ(of[rank].ep, (Members{0, 1, 2, 3}));
    EXPECT_EQ(of[rank].data, (Members{0, 1, 2, 3}));
    EXPECT_EQ(of[rank].expert_data, (Members{static_cast<std::int64_t>(rank)}));
  }
  EXPECT_EQ(of[2].cp, (Members{2, 3}));
  EXPECT_EQ(of[2].dp, (Members{0, 2}));
}

TEST(Mesh, OfFewerExpertRanksThanReplicas) {
  const std::vector<Groups> of = all_groups({.dp = 4, .tp = 2, .ep = 2});
  EXPECT_EQ(of[5].ep, (Members{5, 7}));
  EXPECT_EQ(of[5].expert_data, (Members{1, 5}));
  EXPECT_EQ(of[5].data, (Members{1, 3, 5, 7}));
}

TEST(Mesh, NeighboursWithEqualKeyHeads) {
  const std::vector<Groups> of = all_groups({.pp = 2, .tp = 4}, 2);
  EXPECT_EQ(of[1].kv, (Members{0, 1}));
  EXPECT_EQ(of[6].kv, (Members{6, 7}));
  EXPECT_EQ(all_groups({.dp = 2, .tp = 2}, 2)[3].kv, (Members{2, 3}));
}

TEST(Mesh, EndsAreTheFirstAndTheLastStage) {
  const std::vector<Groups> of = all_groups({.pp = 4, .tp = 2});
  EXPECT_EQ(of[0].ends, (Members{0, 6}));
  EXPECT_EQ(of[7].ends, (Members{1, 7}));
  EXPECT_EQ(of[2].ends, (Members{2}));
  EXPECT_EQ(of[4].ends, (Members{4}));
  EXPECT_EQ(all_groups({.dp = 2})[1].ends, (Members{1}));
}

TEST(Mesh, KnowsItsEnds) {
  run_ranks(3, [](Communicator& world) {
    const Mesh mesh(world, {.pp = 3});
    EXPECT_EQ(mesh.first_stage(), world.rank() == 0);
    EXPECT_EQ(mesh.last_stage(), world.rank() == 2);
  });
}

TEST(Mesh, OfOneRank) {
  const Mesh mesh;
  EXPECT_EQ(mesh.shape(), MeshShape());
  EXPECT_EQ(mesh.at(), MeshCoordinates());
  EXPECT_TRUE(mesh.first_stage());
  EXPECT_TRUE(mesh.last_stage());
  const Groups g = groups_of(mesh);
  for (const Members& group : {g.tp, g.cp, g.pp, g.dp, g.data, g.ep, g.expert_data, g.kv, g.ends}) {
    EXPECT_THAT(group, ElementsAre(0));
  }
}

TEST(Mesh, RefusesAShapeThatIsNotTheWorlds) {
  run_ranks(2, [](Communicator& world) {
    EXPECT_THROW(Mesh(world, {.dp = 3}), LogicError);
    EXPECT_THROW(Mesh(world, {.tp = 2}, 3), LogicError);
  });
}

}  // namespace
}  // namespace jamba
