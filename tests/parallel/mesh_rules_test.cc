#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>

#include "kernels/core/errors.h"
#include "parallel/mesh_shape.h"

namespace jamba {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;

TEST(ResolveMesh, AcceptsExactlyTheMeshes) {
  constexpr std::int64_t kLimit = 9;
  for (int world = 1; world < kLimit; ++world) {
    for (std::int64_t code = 0; code < kLimit * kLimit * kLimit * kLimit; ++code) {
      const std::int64_t tp = code % kLimit + 1;
      const std::int64_t pp = code / kLimit % kLimit + 1;
      const std::int64_t cp = code / kLimit / kLimit % kLimit + 1;
      const std::int64_t ep = code / kLimit / kLimit / kLimit + 1;
      const bool sound = world % (tp * pp * cp) == 0 && world / (tp * pp) % ep == 0;
      const MeshDegrees degrees{.tp = tp, .pp = pp, .cp = cp, .ep = ep};
      ASSERT_EQ(check_mesh(world, degrees).size(), sound ? 0U : 1U);
      if (!sound) continue;
      const MeshShape m = resolve_mesh(world, degrees);
      EXPECT_EQ(m.world_size(), world);
      EXPECT_TRUE(m.tp == tp && m.pp == pp && m.cp == cp && m.ep == ep);
    }
  }
}

auto fault(const std::string& key, const std::string& message) {
  return ElementsAre(AllOf(Field(&MeshFault::key, key), Field(&MeshFault::message, message)));
}

TEST(CheckMesh, NamesTheNearestMeshes) {
  EXPECT_THAT(check_mesh(8, {.tp = 3}),
              fault("parallel.tp",
                    "8 ranks are no multiple of tp x pp x cp = 3 x 1 x 1 = 3; "
                    "nearest: parallel.tp=2 or parallel.tp=4"));
  EXPECT_THAT(check_mesh(8, {.pp = 16}),
              fault("parallel.pp",
                    "8 ranks are no multiple of tp x pp x cp = 1 x 16 x 1 = 16; "
                    "nearest: parallel.pp=8"));
  EXPECT_THAT(check_mesh(8, {.tp = 2, .pp = 8}),
              fault("parallel.tp",
                    "8 ranks are no multiple of tp x pp x cp = 2 x 8 x 1 = 16; "
                    "nearest: parallel.tp=1 or parallel.pp=4"));
  EXPECT_THAT(check_mesh(8, {.tp = 3, .cp = 3}),
              fault("parallel.tp",
                    "8 ranks are no multiple of tp x pp x cp = 3 x 1 x 3 = 9; "
                    "nearest: parallel.tp=2 parallel.cp=4 or "
                    "parallel.tp=4 parallel.cp=2"));
  EXPECT_THAT(check_mesh(4, {.tp = 2, .ep = 4}), fault("parallel.ep",
                                                       "4 does not divide dp x cp = 2 x 1 = 2; "
                                                       "nearest: parallel.tp=1 or parallel.ep=2"));
  EXPECT_THAT(check_mesh(12, {.cp = 2, .ep = 5}), fault("parallel.ep",
                                                        "5 does not divide dp x cp = 6 x 2 = 12; "
                                                        "nearest: parallel.ep=4 or parallel.ep=6"));
}

/// Hints are themselves sound, whatever was asked for: applied, they leave no fault.
TEST(CheckMesh, EveryHintIsSound) {
  const auto apply = [](MeshDegrees degrees, const std::string& changes) {
    const std::map<std::string, std::int64_t MeshDegrees::*> members = {{"tp", &MeshDegrees::tp},
                                                                        {"pp", &MeshDegrees::pp},
                                                                        {"cp", &MeshDegrees::cp},
                                                                        {"ep", &MeshDegrees::ep}};
    const std::string prefix = "parallel.";
    std::size_t at = 0;
    while ((at = changes.find(prefix, at)) != std::string::npos) {
      at += prefix.size();
      degrees.*members.at(changes.substr(at, 2)) = std::stoll(changes.substr(at + 3));
    }
    return degrees;
  };
  for (const int world : {1, 2, 6, 8, 12}) {
    for (std::int64_t tp = 1; tp <= 5; ++tp) {
      for (std::int64_t pp = 1; pp <= 5; ++pp) {
        for (std::int64_t cp = 1; cp <= 5; ++cp) {
          for (std::int64_t ep = 1; ep <= 5; ++ep) {
            const MeshDegrees asked{tp, pp, cp, ep};
            for (const MeshFault& f : check_mesh(world, asked)) {
              const std::string marker = "nearest: ";
              const std::size_t start = f.message.find(marker);
              ASSERT_NE(start, std::string::npos) << f.message;
              const std::string hints = f.message.substr(start + marker.size());
              const std::size_t middle = hints.find(" or ");
              EXPECT_THAT(check_mesh(world, apply(asked, hints.substr(0, middle))), IsEmpty());
              if (middle == std::string::npos) continue;
              EXPECT_THAT(check_mesh(world, apply(asked, hints.substr(middle))), IsEmpty());
            }
          }
        }
      }
    }
  }
}

TEST(CheckMesh, TakesAnyNumbers) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  EXPECT_THAT(check_mesh(8, {.tp = kHuge, .pp = kHuge, .cp = kHuge, .ep = kHuge}),
              fault("parallel.tp",
                    "8 ranks are no multiple of tp x pp x cp = 4611686018427387904 "
                    "x 4611686018427387904 x 4611686018427387904; nearest: "
                    "parallel.tp=1 parallel.pp=1 parallel.cp=8 parallel.ep=8 or "
                    "parallel.tp=1 parallel.pp=2 parallel.cp=4 parallel.ep=4"));
  EXPECT_THAT(check_mesh(4, {.tp = kHuge, .cp = 4}),
              fault("parallel.tp",
                    "4 ranks are no multiple of tp x pp x cp = 4611686018427387904 x 1 x 4; "
                    "nearest: parallel.tp=1"));
  EXPECT_THAT(check_mesh(8, {.ep = kHuge}),
              fault("parallel.ep",
                    "4611686018427387904 does not divide dp x cp = 8 x 1 = 8; "
                    "nearest: parallel.ep=8"));
  EXPECT_THAT(check_mesh(8, {.cp = 0}), fault("parallel.cp", "must be at least 1, got 0"));
  EXPECT_EQ(check_mesh(8, {.tp = -kHuge, .pp = 0, .cp = -1, .ep = -2}).size(), 4U);
  EXPECT_THROW(resolve_mesh(8, {.tp = 3}), LogicError);
  EXPECT_THROW(check_mesh(0, {}), LogicError);
}

}  // namespace
}  // namespace jamba
