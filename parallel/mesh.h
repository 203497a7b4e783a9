#pragma once
// A rank's place in the process mesh, and the groups of ranks that it exchanges with.

#include <array>
#include <memory>

#include "parallel/comm/communicator.h"
#include "parallel/mesh_shape.h"

namespace jamba {

/// Groups along every axis. An axis of degree 1 is a group of this rank alone, so that code need
/// not ask which axes a mesh has.
/// Lifetime: the world must outlive it.
class Mesh {
 public:
  /// A mesh of one rank.
  Mesh();
  /// All ranks of the world together.
  /// kv_copies: tensor-parallel neighbours that hold the same key and value heads (1 unless there
  /// are fewer such heads than ranks).
  Mesh(Communicator& world, const MeshShape&, int kv_copies = 1);

  const MeshShape& shape() const { return shape_; }
  const MeshCoordinates& at() const { return at_; }

  Communicator& world() const { return *world_; }
  Communicator& tp() const { return group(Axis::tp); }
  Communicator& cp() const { return group(Axis::cp); }
  Communicator& pp() const { return group(Axis::pp); }
  Communicator& dp() const { return group(Axis::dp); }
  /// dp x cp: ranks with equal dense parameters.
  Communicator& data() const { return group(Axis::data); }
  Communicator& ep() const { return group(Axis::ep); }
  /// Ranks with equal expert parameters.
  Communicator& expert_data() const { return group(Axis::expert_data); }
  /// Tensor-parallel neighbours with equal key and value heads.
  Communicator& kv() const { return *kv_; }
  /// The first and the last pipeline stage: where tied embeddings meet. Ranks of other stages have
  /// a group of their own that nothing uses.
  Communicator& ends() const { return *ends_; }

  /// Gets all groups ready for tensors on the stream's device; all ranks together.
  void prepare(Stream&) const;

  /// Bytes that this rank has sent to others so far, by kind of group; kinds of degree 1 are left
  /// out.
  struct Traffic {
    std::string axis;
    std::int64_t bytes = 0;
  };
  std::vector<Traffic> traffic() const;

  bool first_stage() const { return at_.pp == 0; }
  bool last_stage() const { return at_.pp + 1 == shape_.pp; }

 private:
  Communicator& group(Axis axis) const { return *groups_[static_cast<std::size_t>(axis)]; }

  MeshShape shape_;
  MeshCoordinates at_;
  std::unique_ptr<Communicator> alone_;  // the world of a mesh of one rank
  Communicator* world_;
  std::array<std::unique_ptr<Communicator>, kNumAxes> groups_;
  std::unique_ptr<Communicator> kv_, ends_;
};

}  // namespace jamba
