#include "kernels/mamba/selective_scan_forward.cuh"

namespace jamba::cuda {

template <>
void scan_forward<4>(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                     const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                     const ScanPlan& plan) {
  launch_scan_forward<4, 4>(stream, scratch, out, h_last, saved, in, plan);
}

template <>
void scan_forward<2>(Stream&, Arena&, Tensor, Tensor, const SelectiveScanSaved&,
                     const SelectiveScanInputs&, const ScanPlan&);
template <>
void scan_forward<8>(Stream&, Arena&, Tensor, Tensor, const SelectiveScanSaved&,
                     const SelectiveScanInputs&, const ScanPlan&);

void selective_scan_forward(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                            const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                            ChannelRange range) {
  const ScanPlan plan = ScanPlan::of(in, range);
  if (plan.state <= 2 * kStateLanes) {
    scan_forward<2>(stream, scratch, out, h_last, saved, in, plan);
  } else if (plan.state <= 4 * kStateLanes) {
    scan_forward<4>(stream, scratch, out, h_last, saved, in, plan);
  } else if (plan.state <= 8 * kStateLanes) {
    scan_forward<8>(stream, scratch, out, h_last, saved, in, plan);
  } else {
    throw UnsupportedError("the selective scan on CUDA takes at most 32 states");
  }
}

}  // namespace jamba::cuda
