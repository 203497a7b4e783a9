// Other numbers of states than the usual 16.

#include "kernels/mamba/selective_scan_backward.cuh"

namespace jamba::cuda {

template <>
void scan_backward<2>(Stream& stream, const BackwardParts& parts, const SelectiveScanGradients& g,
                      Tensor out, Tensor dout, Tensor dh_last, const SelectiveScanSaved& saved,
                      const SelectiveScanInputs& in, const ScanPlan& plan, const ScanParts& time,
                      int) {
  launch_scan_backward<2, 1>(stream, parts, g, out, dout, dh_last, saved, in, plan, time);
}
template <>
void scan_backward<8>(Stream& stream, const BackwardParts& parts, const SelectiveScanGradients& g,
                      Tensor out, Tensor dout, Tensor dh_last, const SelectiveScanSaved& saved,
                      const SelectiveScanInputs& in, const ScanPlan& plan, const ScanParts& time,
                      int) {
  launch_scan_backward<8, 1>(stream, parts, g, out, dout, dh_last, saved, in, plan, time);
}

}  // namespace jamba::cuda
