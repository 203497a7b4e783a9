#pragma once
// The selective scan one scalar at a time: forward for double and complex, backward for double.

#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace jamba::test {

struct ScanDims {
  std::int64_t batch, seq, inner, state;

  std::int64_t tokens() const { return batch * seq; }
  std::int64_t activations() const { return batch * seq * inner; }
  std::int64_t projections() const { return batch * seq * state; }
  std::int64_t states() const { return batch * inner * state; }
};

/// Row-major arrays, shapes as in SelectiveScanInputs. Empty h0 or doc_start: absent.
template <class T>
struct ScanInputs {
  std::vector<T> u, delta, z, b, c, delta_bias, d, a_log, h0;
  std::vector<std::int64_t> doc_start;
};

template <class T>
struct ScanOutputs {
  std::vector<T> out, h_last;
};

inline double real_part(double x) { return x; }
inline double real_part(const std::complex<double>& x) { return x.real(); }

template <class T>
T sigmoid(T x) {
  using std::exp;
  return real_part(x) > 0 ? T(1) / (T(1) + exp(-x)) : exp(x) / (T(1) + exp(x));
}

template <class T>
T softplus(T x) {
  using std::exp, std::log;
  if constexpr (std::is_same_v<T, double>) {
    return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
  } else {
    return real_part(x) > 0 ? x + log(T(1) + exp(-x)) : log(T(1) + exp(x));
  }
}

/// h_t from h_{t-1} for one channel. Zeroes, not multiplies, at a document start.
template <class T>
void reference_step(std::vector<T>& h, const ScanDims& dims, const ScanInputs<T>& in,
                    std::int64_t token, std::int64_t channel, std::int64_t t) {
  using std::exp;
  const std::int64_t at = token * dims.inner + channel;
  const T dt = softplus(in.delta[at] + in.delta_bias[channel]);
  const bool reset = !in.doc_start.empty() && in.doc_start[token] == t;
  for (std::int64_t n = 0; n < dims.state; ++n) {
    const T a = -exp(in.a_log[channel * dims.state + n]);
    const T kept = reset ? T(0) : exp(dt * a) * h[n];
    h[n] = kept + dt * in.u[at] * in.b[token * dims.state + n];
  }
}

template <class T>
ScanOutputs<T> scan_reference(const ScanDims& dims, const ScanInputs<T>& in) {
  ScanOutputs<T> result{std::vector<T>(dims.activations()), std::vector<T>(dims.states())};
  std::vector<T> h(dims.state);
  for (std::int64_t row = 0; row < dims.batch * dims.inner; ++row) {
    const std::int64_t channel = row % dims.inner;
    for (std::int64_t n = 0; n < dims.state; ++n) {
      h[n] = in.h0.empty() ? T(0) : in.h0[row * dims.state + n];
    }
    for (std::int64_t t = 0; t < dims.seq; ++t) {
      const std::int64_t token = row / dims.inner * dims.seq + t;
      const std::int64_t at = token * dims.inner + channel;
      reference_step(h, dims, in, token, channel, t);
      T y = in.d[channel] * in.u[at];
      for (std::int64_t n = 0; n < dims.state; ++n) y += in.c[token * dims.state + n] * h[n];
      result.out[at] = y * in.z[at] * sigmoid(in.z[at]);
    }
    for (std::int64_t n = 0; n < dims.state; ++n) result.h_last[row * dims.state + n] = h[n];
  }
  return result;
}

struct ScanGradients {
  std::vector<double> du, ddelta, dz, db, dc, ddelta_bias, dd, da_log, dh0;

  explicit ScanGradients(const ScanDims& dims)
      : du(dims.activations()),
        ddelta(dims.activations()),
        dz(dims.activations()),
        db(dims.projections()),
        dc(dims.projections()),
        ddelta_bias(dims.inner),
        dd(dims.inner),
        da_log(dims.inner * dims.state),
        dh0(dims.states()) {}
};

/// One token of one channel, backwards. `before` and `after` are h_{t-1} and h_t; `carry` is the
/// gradient that reaches h_t from later steps, and leaves as the one that reaches h_{t-1}.
inline void reference_step_back(ScanGradients& g, std::vector<double>& carry, const ScanDims& dims,
                                const ScanInputs<double>& in, const std::vector<double>& before,
                                const std::vector<double>& after, double dout, std::int64_t token,
                                std::int64_t channel, std::int64_t t) {
  const std::int64_t at = token * dims.inner + channel, row = token * dims.state;
  const double x = in.delta[at] + in.delta_bias[channel], dt = softplus(x), u = in.u[at];
  const double z = in.z[at], s = sigmoid(z), dy = dout * z * s;
  const bool reset = !in.doc_start.empty() && in.doc_start[token] == t;
  double y = in.d[channel] * u, ddt = 0;
  g.du[at] = in.d[channel] * dy;
  for (std::int64_t n = 0; n < dims.state; ++n) {
    const double rate = -std::exp(in.a_log[channel * dims.state + n]);
    const double a = reset ? 0.0 : std::exp(dt * rate), b = in.b[row + n], c = in.c[row + n];
    const double kept = reset ? 0.0 : a * before[n];
    y += c * after[n];
    const double gh = carry[n] + dy * c;
    g.dc[row + n] += dy * after[n];
    g.db[row + n] += gh * dt * u;
    g.du[at] += dt * gh * b;
    ddt += gh * (u * b + kept * rate);
    g.da_log[channel * dims.state + n] += gh * kept * dt * rate;
    carry[n] = reset ? 0.0 : gh * a;
  }
  g.dz[at] = dout * y * s * (1 + z * (1 - s));
  g.ddelta[at] = ddt * sigmoid(x);
  g.ddelta_bias[channel] += g.ddelta[at];
  g.dd[channel] += dy * u;
}

/// dh_last empty: zero.
inline ScanGradients scan_reference_backward(const ScanDims& dims, const ScanInputs<double>& in,
                                             const std::vector<double>& dout,
                                             const std::vector<double>& dh_last) {
  ScanGradients g(dims);
  std::vector<std::vector<double>> h(dims.seq + 1, std::vector<double>(dims.state));
  for (std::int64_t row = 0; row < dims.batch * dims.inner; ++row) {
    const std::int64_t channel = row % dims.inner, first = row / dims.inner * dims.seq;
    std::vector<double> carry(dims.state);
    for (std::int64_t n = 0; n < dims.state; ++n) {
      h[0][n] = in.h0.empty() ? 0.0 : in.h0[row * dims.state + n];
      carry[n] = dh_last.empty() ? 0.0 : dh_last[row * dims.state + n];
    }
    for (std::int64_t t = 0; t < dims.seq; ++t) {
      h[t + 1] = h[t];
      reference_step(h[t + 1], dims, in, first + t, channel, t);
    }
    for (std::int64_t t = dims.seq - 1; t >= 0; --t) {
      reference_step_back(g, carry, dims, in, h[t], h[t + 1],
                          dout[(first + t) * dims.inner + channel], first + t, channel, t);
    }
    for (std::int64_t n = 0; n < dims.state; ++n) g.dh0[row * dims.state + n] = carry[n];
  }
  return g;
}

}  // namespace jamba::test
