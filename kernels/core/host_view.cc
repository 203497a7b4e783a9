#include "kernels/core/host_view.h"

namespace jamba {

HostView::HostView(Stream& stream, const Tensor& t, HostAccess access)
    : stream_(stream), tensor_(t), view_(t) {
  if (t.absent() || t.device().kind == DeviceKind::cpu) return;
  copy_ = Buffer(t.bytes(), {}, Fill::untouched);
  view_ = Tensor(copy_.data(), t.dtype(), t.dims());
  if (access == HostAccess::read) copy(stream_, view_, tensor_);
}

void HostView::store() const {
  if (view_.raw() != tensor_.raw()) copy(stream_, tensor_, view_);
}

}  // namespace jamba
