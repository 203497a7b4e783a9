#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"
#include "kernels/core/write.h"

namespace jamba {

/// Steps between two saved states.
inline constexpr std::int64_t kScanChunk = 64;
/// Channels of one task. Gradients of B and C are summed within a group, then over groups in order,
/// so this must not depend on the number of threads. Small enough that a sequence of inner 512
/// feeds two threads; large enough that the partial sums (8 bytes a state, token and group) cost
/// little and that rows are read in long pieces: with 128, two threads wait for memory (1.85 times
/// as fast as one in backward; with 256, 1.97).
inline constexpr std::int64_t kScanGroup = 256;

/// The channels of one call: ranks that share a sequence pass its state on range by range. Only
/// their part of the outputs is written, and of h0, dh_last and saved tensors read.
struct ChannelRange {
  std::int64_t begin = 0;   // a multiple of kScanGroup
  std::int64_t count = -1;  // so is the end, if it is not the last channel's; -1: to the last
};

/// Inputs of the Mamba-1 selective scan with softplus, D skip and gate fused:
///   dt = softplus(delta + delta_bias);  A = -exp(a_log)
///   h_t = exp(dt A) h_{t-1} + dt u B_t;  y = sum_n C_t[n] h_t[n] + D u;  out = y * silu(z)
/// h_{t-1} is zero at a document's first token (doc_start[t] == t). A place below 0 is that of a
/// document which began before these steps: h0 goes on in it.
/// Shapes: u, delta, z [batch, seq, inner]; b, c [batch, seq, state];
///         delta_bias, d [inner]; a_log [inner, state];
///         h0 [batch, inner, state] or absent (zero); doc_start [batch, seq] or absent.
/// Dtypes: u, delta, z float32 or bfloat16, equal; all else float32, doc_start int32.
///         All arithmetic and the state in float32.
struct SelectiveScanInputs {
  Tensor u, delta, z, b, c, delta_bias, d, a_log, h0, doc_start;
};

/// What forward leaves for backward.
/// Shapes: states: scan_states_bytes(...) bytes, the state at each chunk's first step, in an
///         order private to the device; y [batch, seq, inner] (before the gate), dtype of u.
struct SelectiveScanSaved {
  Tensor states, y;
};

std::int64_t scan_states_bytes(std::int64_t batch, std::int64_t seq, std::int64_t inner,
                               std::int64_t state);

/// Shapes: out [batch, seq, inner], dtype of u; h_last [batch, inner, state] float32 or absent.
/// saved.states and saved.y may both be absent when no backward follows.
/// Aliasing: none.  seq = 0 is legal (h_last = h0).
/// Errors: LogicError if shapes disagree or a range's end is where it may not be.
/// Determinism: bitwise for any thread count, for any split of seq with the state handed over, and
///         for any split into ranges of channels.
void selective_scan_forward(Stream&, Arena& scratch, Tensor out, Tensor h_last,
                            const SelectiveScanSaved& saved, const SelectiveScanInputs&,
                            ChannelRange = {});

/// Gradients of selective_scan_forward.
/// Shapes: du, ddelta, dz as u; db, dc as b; ddelta_bias, dd, da_log as delta_bias, d, a_log;
///         dh0 as h0 or absent.
/// ddelta_bias, dd, da_log accumulate; db and dc as the call says; everything else overwrites.
/// dh0 is zero where the first token starts a document.
struct SelectiveScanGradients {
  Tensor du, ddelta, dz, db, dc, ddelta_bias, dd, da_log, dh0;
};

/// Shapes: dout, out [batch, seq, inner], dtype of u; dh_last [batch, inner, state] float32 or
///         absent (zero).
/// out: forward's out again, from y and z, so that it need not be kept for the layer after it.
/// Aliasing: out may be dout.
/// write_bc: whether the range's sums, rounded to float32, replace db and dc or are added to them.
/// Determinism: bitwise for any thread count: db, dc sum fixed groups of channels in order.
///         Ranges of one group each, in ascending order, give the bits of a single call; other
///         ranges change the rounding of db and dc alone.
void selective_scan_backward(Stream&, Arena& scratch, const SelectiveScanGradients&, Tensor out,
                             Tensor dout, Tensor dh_last, const SelectiveScanSaved&,
                             const SelectiveScanInputs&, ChannelRange = {},
                             Write write_bc = Write::overwrite);

}  // namespace jamba
