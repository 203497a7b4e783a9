#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Steps between two saved states.
inline constexpr std::int64_t kScanChunk = 64;

/// Inputs of the Mamba-1 selective scan with softplus, D skip and gate fused:
///   dt = softplus(delta + delta_bias);  A = -exp(a_log)
///   h_t = exp(dt A) h_{t-1} + dt u B_t;  y = sum_n C_t[n] h_t[n] + D u;  out = y * silu(z)
/// h_{t-1} is zero at a document's first token (doc_start[t] == t).
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
/// Determinism: bitwise for any thread count, and for any split of seq with the state handed over.
void selective_scan_forward(Stream&, Arena& scratch, Tensor out, Tensor h_last,
                            const SelectiveScanSaved& saved, const SelectiveScanInputs&);

/// Gradients of selective_scan_forward.
/// Shapes: du, ddelta, dz as u; db, dc as b; ddelta_bias, dd, da_log as delta_bias, d, a_log;
///         dh0 as h0 or absent.
/// ddelta_bias, dd, da_log accumulate; everything else overwrites.  dh0 is zero where the first
/// token starts a document.
struct SelectiveScanGradients {
  Tensor du, ddelta, dz, db, dc, ddelta_bias, dd, da_log, dh0;
};

/// Shapes: dout, out [batch, seq, inner], dtype of u; dh_last [batch, inner, state] float32 or
///         absent (zero).
/// out: forward's out again, from y and z, so that it need not be kept for the layer after it.
/// Aliasing: out may be dout.
/// Determinism: bitwise for any thread count: db, dc sum fixed groups of channels in order.
void selective_scan_backward(Stream&, Arena& scratch, const SelectiveScanGradients&, Tensor out,
                             Tensor dout, Tensor dh_last, const SelectiveScanSaved&,
                             const SelectiveScanInputs&);

}  // namespace jamba
