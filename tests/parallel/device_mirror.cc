#include "tests/parallel/device_mirror.h"

#include <utility>
#include <vector>

#include "kernels/core/memory.h"

namespace jamba::test {

namespace {

/// Host tensors of one operation and the same on the device. If one is part of the other, it is
/// there too.
class Mirrored {
 public:
  Mirrored(const Operation& op, Device device) : device_(device) {
    const bool x_is_larger = op.out.absent() || (op.x.present() && op.x.bytes() > op.out.bytes());
    const Tensor& larger = x_is_larger ? op.x : op.out;
    const Tensor& smaller = x_is_larger ? op.out : op.x;
    Tensor& larger_there = x_is_larger ? x_ : out_;
    Tensor& smaller_there = x_is_larger ? out_ : x_;
    larger_there = allocate(larger);
    if (smaller.absent()) return;
    const std::int64_t offset =
        static_cast<const char*>(smaller.raw()) - static_cast<const char*>(larger.raw());
    const bool within = offset >= 0 && offset + smaller.bytes() <= larger.bytes();
    smaller_there = within ? Tensor(static_cast<char*>(larger_there.raw()) + offset,
                                    smaller.dtype(), smaller.dims(), device)
                           : allocate(smaller);
  }

  const Tensor& out() const { return out_; }
  const Tensor& x() const { return x_; }
  std::vector<Buffer> take_buffers() { return std::move(buffers_); }

 private:
  Tensor allocate(const Tensor& like) {
    // Not on a boundary of more than an element: nor are views into flat buffers.
    constexpr std::int64_t kOffset = 8;
    const Buffer& buffer = buffers_.emplace_back(like.bytes() + kOffset, device_, Fill::untouched);
    return Tensor(static_cast<char*>(buffer.data()) + kOffset, like.dtype(), like.dims(), device_);
  }

  Device device_;
  std::vector<Buffer> buffers_;
  Tensor out_, x_;
};

class DeviceMirror final : public Communicator {
 public:
  DeviceMirror(std::unique_ptr<Communicator> inner, Device device)
      : Communicator(inner->axis(), inner->rank(), inner->size()),
        inner_(std::move(inner)),
        stream_(Stream::on(device)) {
    inner_->prepare(stream_, Messages::some);
  }

  void progress() override { inner_->progress(); }

 private:
  class Running final : public RunningOperation {
   public:
    Running(DeviceMirror& mirror, const Operation& op, Mirrored there)
        : mirror_(mirror), op_(op), there_(std::move(there)) {
      op_.out_rows = op_.x_rows = {};
      ++mirror_.num_running_;
    }
    ~Running() override {
      // Freeing memory waits for all of the device, and so would for operations that other ranks
      // have not come to.
      for (Buffer& buffer : there_.take_buffers()) mirror_.parked_.push_back(std::move(buffer));
      if (--mirror_.num_running_ == 0) mirror_.parked_.clear();
    }
    void finish() override {
      pending.wait();
      if (op_.out.present()) {
        copy(mirror_.stream_, op_.out, there_.out());
      } else if (op_.kind != OperationKind::send) {
        copy(mirror_.stream_, op_.x, there_.x());
      }
    }

    PendingCollective pending;

   private:
    DeviceMirror& mirror_;
    Operation op_;
    Mirrored there_;
  };

  /// A barrier has no tensors that could be on a device.
  class Done final : public RunningOperation {
    void finish() override {}
  };

  std::unique_ptr<RunningOperation> start(Stream&, const Operation& op) override {
    inner_->set_guards(guards());
    if (op.kind == OperationKind::barrier) {
      inner_->barrier();
      return std::make_unique<Done>();
    }
    Mirrored there(op, stream_.device());
    // The own part is there before, as the other groups' start finds it.
    if (op.out.present()) copy(stream_, there.out(), op.out);
    if (op.x.present()) copy(stream_, there.x(), op.x);
    const Tensor out = there.out(), x = there.x();
    auto running = std::make_unique<Running>(*this, op, std::move(there));
    running->pending = start_there(op, out, x);
    return running;
  }

  PendingCollective start_there(const Operation& op, const Tensor& out, const Tensor& x) {
    switch (op.kind) {
      case OperationKind::all_reduce:
        return inner_->start_all_reduce(stream_, x, op.reduce);
      case OperationKind::reduce_scatter:
        return inner_->start_reduce_scatter(stream_, out, x);
      case OperationKind::all_gather:
        return inner_->start_all_gather(stream_, out, x);
      case OperationKind::all_to_all:
        return inner_->start_all_to_all(stream_, out, x, op.out_rows, op.x_rows);
      case OperationKind::send:
        return inner_->start_send(stream_, x, op.peer);
      case OperationKind::receive:
        return inner_->start_receive(stream_, out, op.peer);
      case OperationKind::broadcast:
        inner_->broadcast(stream_, x, op.peer);
        return {};
      case OperationKind::barrier:
        break;
    }
    throw LogicError("not an operation on a device");
  }

  std::unique_ptr<Communicator> do_split(const std::string& axis, int color) override {
    return make_device_mirror(inner_->split(axis, color), stream_.device());
  }

  std::unique_ptr<Communicator> inner_;
  Stream stream_;
  int num_running_ = 0;
  std::vector<Buffer> parked_;
};

}  // namespace

std::unique_ptr<Communicator> make_device_mirror(std::unique_ptr<Communicator> inner,
                                                 Device device) {
  return std::make_unique<DeviceMirror>(std::move(inner), device);
}

}  // namespace jamba::test
