// Other numbers of states than the usual 16.

#include "kernels/mamba/selective_scan_forward.cuh"

namespace jamba::cuda {

template <>
void scan_forward<2>(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                     const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                     const ScanPlan& plan) {
  launch_scan_forward<2, 1>(stream, scratch, out, h_last, saved, in, plan);
}
template <>
void scan_forward<8>(Stream& stream, Arena& scratch, Tensor out, Tensor h_last,
                     const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                     const ScanPlan& plan) {
  launch_scan_forward<8, 1>(stream, scratch, out, h_last, saved, in, plan);
}

}  // namespace jamba::cuda
