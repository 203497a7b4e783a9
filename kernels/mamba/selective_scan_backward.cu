#include "kernels/mamba/selective_scan_backward.cuh"

namespace jamba::cuda {

template <>
void scan_backward<4>(Stream& stream, const BackwardParts& parts, const SelectiveScanGradients& g,
                      Tensor out, Tensor dout, Tensor dh_last, const SelectiveScanSaved& saved,
                      const SelectiveScanInputs& in, const ScanPlan& plan, const ScanParts& time,
                      int channels) {
  if (channels == 2) {
    launch_scan_backward<4, 2>(stream, parts, g, out, dout, dh_last, saved, in, plan, time);
  } else {
    launch_scan_backward<4, 1>(stream, parts, g, out, dout, dh_last, saved, in, plan, time);
  }
}
template <>
void scan_backward<2>(Stream&, const BackwardParts&, const SelectiveScanGradients&, Tensor, Tensor,
                      Tensor, const SelectiveScanSaved&, const SelectiveScanInputs&,
                      const ScanPlan&, const ScanParts&, int);
template <>
void scan_backward<8>(Stream&, const BackwardParts&, const SelectiveScanGradients&, Tensor, Tensor,
                      Tensor, const SelectiveScanSaved&, const SelectiveScanInputs&,
                      const ScanPlan&, const ScanParts&, int);

namespace {

constexpr int kThreads = 256;

/// db and dc [tokens, state] (+)= the tiles' parts: first those of each group of kScanGroup
/// channels, then the groups, in order.
__global__ void __launch_bounds__(kThreads)
    add_projections_kernel(float* db, float* dc, const float* parts, Index tokens, int state,
                           Index tiles, Index tiles_a_group, bool accumulate) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index n = tokens * 2 * state;
  if (i >= n) return;
  float total = 0.0f;
  for (Index group = 0; group < tiles; group += tiles_a_group) {
    const Index end = group + tiles_a_group < tiles ? group + tiles_a_group : tiles;
    float sum = 0.0f;
    for (Index tile = group; tile < end; ++tile) sum += parts[tile * n + i];
    total += sum;
  }
  const Index token = i / (2 * state), which = i / state % 2, at = token * state + i % state;
  float* const to = (which == 0 ? db : dc) + at;
  *to = accumulate ? *to + total : total;
}

/// Parameters' gradients += what the parts of all sequences give, in order. A thread a channel and
/// state, and one more a channel for what has no states.
__global__ void __launch_bounds__(kThreads)
    add_parameters_kernel(float* da_log, float* dd, float* dbias, BackwardParts parts,
                          const float* a_log, Index count, Index inner, Index begin, Index channels,
                          int state) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= channels * (state + 1)) return;
  const Index channel = begin + i / (state + 1);
  const int n = static_cast<int>(i % (state + 1));
  if (n < state) {
    const Index at = channel * state + n;
    float sum = 0.0f;
    for (Index p = 0; p < count; ++p) sum += parts.da[p * inner * state + at];
    da_log[at] += sum * -expf(a_log[at]);  // dA / da_log = A
    return;
  }
  float d_sum = 0.0f, bias_sum = 0.0f;
  for (Index p = 0; p < count; ++p) {
    d_sum += parts.d[p * inner + channel];
    bias_sum += parts.bias[p * inner + channel];
  }
  dd[channel] += d_sum;
  dbias[channel] += bias_sum;
}

}  // namespace

void selective_scan_backward(Stream& stream, Arena& scratch, const SelectiveScanGradients& g,
                             Tensor out, Tensor dout, Tensor dh_last,
                             const SelectiveScanSaved& saved, const SelectiveScanInputs& in,
                             ChannelRange range, Write write_bc) {
  const ScanPlan plan = ScanPlan::of(in, range);
  constexpr int kWarpsAProcessor = 8;
  const bool usual = plan.state > 2 * kStateLanes && plan.state <= 4 * kStateLanes;
  const int channels_of_lane = usual ? channels_a_lane(stream, plan, 2, kWarpsAProcessor) : 1;
  const std::int64_t tile = channels_of_lane == 2 ? kTileChannels<2> : kTileChannels<1>;
  const std::int64_t channels = plan.end_channel() - plan.range.begin;
  const std::int64_t tiles = ceil_div(channels, tile), tokens = plan.batch * plan.seq;
  const ArenaScope scope(scratch);
  const auto allocate = [&](std::int64_t n) {
    return scratch.allocate(DType::f32, {n}).ptr<float>();
  };
  const ScanParts time = ScanParts::of(stream, scratch, in, plan, kWarpsAProcessor);
  const std::int64_t count = plan.batch * time.count;
  const BackwardParts parts{allocate(tiles * tokens * 2 * plan.state),
                            allocate(count * plan.inner * plan.state), allocate(count * plan.inner),
                            allocate(count * plan.inner)};
  if (plan.state <= 2 * kStateLanes) {
    scan_backward<2>(stream, parts, g, out, dout, dh_last, saved, in, plan, time, channels_of_lane);
  } else if (plan.state <= 4 * kStateLanes) {
    scan_backward<4>(stream, parts, g, out, dout, dh_last, saved, in, plan, time, channels_of_lane);
  } else if (plan.state <= 8 * kStateLanes) {
    scan_backward<8>(stream, parts, g, out, dout, dh_last, saved, in, plan, time, channels_of_lane);
  } else {
    throw UnsupportedError("the selective scan on CUDA takes at most 32 states");
  }
  launch<kThreads>(stream, add_projections_kernel, {ceil_div(tokens * 2 * plan.state, kThreads)}, 0,
                   g.db.ptr<float>(), g.dc.ptr<float>(), parts.bc, tokens,
                   static_cast<int>(plan.state), tiles, kScanGroup / tile,
                   write_bc == Write::accumulate);
  if (plan.batch == 0) return;
  launch<kThreads>(stream, add_parameters_kernel, {ceil_div(channels * (plan.state + 1), kThreads)},
                   0, g.da_log.ptr<float>(), g.dd.ptr<float>(), g.ddelta_bias.ptr<float>(), parts,
                   in.a_log.ptr<float>(), count, plan.inner, plan.range.begin, channels,
                   static_cast<int>(plan.state));
}

}  // namespace jamba::cuda
