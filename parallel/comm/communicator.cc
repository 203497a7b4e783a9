#include "parallel/comm/communicator.h"

#include <utility>

#include "kernels/core/profile.h"
#include "kernels/core/trace.h"
#include "parallel/comm/device_group.h"

namespace jamba {

PendingCollective::PendingCollective(Communicator& group, Stream& stream,
                                     std::unique_ptr<RunningOperation> running, std::string label,
                                     std::int64_t begin_ns)
    : group_(&group),
      stream_(&stream),
      running_(std::move(running)),
      label_(std::move(label)),
      begin_ns_(begin_ns) {}

void PendingCollective::wait() {
  if (!running_) return;
  Profile& profile = stream_->profile();
  const std::unique_ptr<RunningOperation> running = std::move(running_);
  const std::string name =
      Range::watched(profile) ? fmt::format("{}{}", kWaitPrefix, group_->axis()) : "";
  std::int64_t end_ns = 0;
  {
    const ProfileScope timer(profile, Part::communication, name.c_str());
    running->finish();
    end_ns = running->done_ns() > 0 ? running->done_ns() : Trace::now_ns();
  }
  if (profile.trace == nullptr) return;
  profile.trace->add(profile.trace->lane(fmt::format("comm {}", group_->axis())), label_, begin_ns_,
                     end_ns);
}

Communicator::Communicator(std::string axis, int rank, int size)
    : axis_(std::move(axis)),
      rank_(rank),
      size_(size),
      num_sent_(static_cast<std::size_t>(size)),
      num_received_(static_cast<std::size_t>(size)) {}

Communicator::~Communicator() = default;

void Communicator::prepare(Stream& stream, Messages messages) {
  if (stream.device().kind == DeviceKind::cpu || size_ == 1 || device_group_ != nullptr) return;
  device_group_ = backend_function(&cuda::make_device_group, "prepare")(*this, stream, messages);
}

std::unique_ptr<RunningOperation> Communicator::start_anywhere(Stream& stream,
                                                               const Operation& op) {
  if (device_of(op).kind == DeviceKind::cpu) return start(stream, op);
  prepare(stream, Messages::none);
  return device_group_->start(stream, op);
}

PendingCollective Communicator::launch(Stream& stream, Operation op) {
  check_arguments(op, stream.device(), rank_, size_);
  const bool watched = size_ > 1 && Range::watched(stream.profile());
  const std::string label = watched ? op.label() : "";
  const ProfileScope timer(stream.profile(), Part::communication,
                           watched ? label.c_str() : part_name(Part::communication));
  if (size_ == 1) {
    copy_own_part(stream, op, 0);
    return {};
  }
  op.number = next_number(op);
  bytes_sent_ += sent_bytes(op, rank_, size_);
  const std::int64_t begin_ns = Trace::now_ns();
  return PendingCollective(*this, stream, start_anywhere(stream, op), label, begin_ns);
}

std::int64_t Communicator::next_number(const Operation& op) {
  if (op.kind == OperationKind::send) return ++num_sent_[static_cast<std::size_t>(op.peer)];
  if (op.kind == OperationKind::receive) return ++num_received_[static_cast<std::size_t>(op.peer)];
  return ++num_collectives_;
}

std::unique_ptr<Communicator> Communicator::split(const std::string& axis, int color) {
  // do_split may wait without a guard: a rank that does not come is found here.
  barrier();
  std::unique_ptr<Communicator> part = do_split(axis, color);
  part->set_guards(guards_);
  return part;
}

void Communicator::all_reduce(Stream& stream, Tensor x, ReduceOp op) {
  start_all_reduce(stream, x, op).wait();
}

void Communicator::reduce_scatter(Stream& stream, Tensor out, Tensor x) {
  start_reduce_scatter(stream, out, x).wait();
}

void Communicator::all_gather(Stream& stream, Tensor out, Tensor x) {
  start_all_gather(stream, out, x).wait();
}

void Communicator::all_to_all(Stream& stream, Tensor out, Tensor x,
                              std::span<const std::int64_t> out_rows,
                              std::span<const std::int64_t> x_rows) {
  start_all_to_all(stream, out, x, out_rows, x_rows).wait();
}

void Communicator::broadcast(Stream& stream, Tensor x, int root) {
  launch(stream, {.kind = OperationKind::broadcast, .x = x, .peer = root}).wait();
}

void Communicator::barrier() {
  Stream stream = Stream::cpu();
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(size_) + 1);
  launch(stream, {.kind = OperationKind::barrier,
                  .out = Tensor(tokens.data(), DType::u8, {size_}),
                  .x = Tensor(tokens.data() + size_, DType::u8, {1})})
      .wait();
}

PendingCollective Communicator::start_all_reduce(Stream& stream, Tensor x, ReduceOp op) {
  return launch(stream, {.kind = OperationKind::all_reduce, .x = x, .reduce = op});
}

PendingCollective Communicator::start_reduce_scatter(Stream& stream, Tensor out, Tensor x) {
  return launch(stream, {.kind = OperationKind::reduce_scatter, .out = out, .x = x});
}

PendingCollective Communicator::start_all_gather(Stream& stream, Tensor out, Tensor x) {
  return launch(stream, {.kind = OperationKind::all_gather, .out = out, .x = x});
}

PendingCollective Communicator::start_all_to_all(Stream& stream, Tensor out, Tensor x,
                                                 std::span<const std::int64_t> out_rows,
                                                 std::span<const std::int64_t> x_rows) {
  return launch(stream, {.kind = OperationKind::all_to_all,
                         .out = out,
                         .x = x,
                         .out_rows = out_rows,
                         .x_rows = x_rows});
}

PendingCollective Communicator::start_send(Stream& stream, Tensor x, int to) {
  return launch(stream, {.kind = OperationKind::send, .x = x, .peer = to});
}

PendingCollective Communicator::start_receive(Stream& stream, Tensor out, int from) {
  return launch(stream, {.kind = OperationKind::receive, .out = out, .peer = from});
}

Agreement agree(Communicator& group, int exit_code, const std::string& message) {
  Stream stream = Stream::cpu();
  std::int64_t mine[2] = {exit_code, static_cast<std::int64_t>(message.size())};
  std::vector<std::int64_t> all(2 * static_cast<std::size_t>(group.size()));
  group.all_gather(stream, Tensor(all.data(), DType::i64, {group.size(), 2}),
                   Tensor(mine, DType::i64, {2}));

  Agreement result;
  for (int rank = 0; rank < group.size(); ++rank) {
    const std::size_t at = 2 * static_cast<std::size_t>(rank);
    if (all[at] == 0) continue;
    result.rank = rank;
    result.exit_code = static_cast<int>(all[at]);
    result.message = rank == group.rank() ? message : std::string(all[at + 1], '\0');
    group.broadcast(stream, Tensor(result.message.data(), DType::u8, {all[at + 1]}), rank);
    break;
  }
  return result;
}

}  // namespace jamba
