#include "parallel/mesh.h"

#include "kernels/core/errors.h"
#include "parallel/comm/thread_group.h"

namespace jamba {

Mesh::Mesh()
    : at_(coordinates(shape_, 0)),
      alone_(make_single_rank()),
      world_(alone_.get()),
      kv_(make_single_rank()),
      ends_(make_single_rank()) {
  for (auto& group : groups_) group = make_single_rank();
}

Mesh::Mesh(Communicator& world, const MeshShape& shape, int kv_copies)
    : shape_(shape), at_(coordinates(shape, world.rank())), world_(&world) {
  JAMBA_CHECK(shape.world_size() == world.size(), "a mesh of {} ranks for {}", shape.world_size(),
              world.size());
  JAMBA_CHECK(shape.tp % kv_copies == 0, "{} copies among {} ranks", kv_copies, shape.tp);
  for (int axis = 0; axis < kNumAxes; ++axis) {
    const auto a = static_cast<Axis>(axis);
    groups_[static_cast<std::size_t>(axis)] =
        world.split(axis_name(a), color(shape, a, world.rank()));
  }
  kv_ = tp().split("kv", at_.tp / kv_copies);
  ends_ = pp().split("ends", first_stage() || last_stage() ? 0 : at_.pp);
}

void Mesh::prepare(Stream& stream) const {
  for (int axis = 0; axis < kNumAxes; ++axis) {
    const auto a = static_cast<Axis>(axis);
    const bool chain = a == Axis::pp || a == Axis::cp;  // neighbours hand on activations and states
    group(a).prepare(stream, chain ? Messages::some : Messages::none);
  }
  kv_->prepare(stream, Messages::none);
  ends_->prepare(stream, Messages::none);
}

std::vector<Mesh::Traffic> Mesh::traffic() const {
  std::vector<Traffic> out;
  const auto add = [&](const Communicator& group) {
    if (group.size() > 1) out.push_back({group.axis(), group.bytes_sent()});
  };
  for (const auto& group : groups_) add(*group);
  add(*kv_);
  add(*ends_);
  add(*world_);
  return out;
}

}  // namespace jamba
