#pragma once
// Cutting scans into pieces and comparing their results, for the selective scan's tests.

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/mamba/scan_fixture.h"

namespace jamba::test {

/// Everything that one forward and backward leave, by name.
using ScanResults = std::vector<std::pair<std::string, std::vector<double>>>;

struct ScanRun {
  ScanOutputs<double> out;
  ScanGradients gradients;

  /// One value a (token, channel), (token, state) or (channel, state).
  ScanResults exact_results() const {
    return {{"out", out.out},     {"h_last", out.h_last},
            {"du", gradients.du}, {"ddelta", gradients.ddelta},
            {"dz", gradients.dz}, {"db", gradients.db},
            {"dc", gradients.dc}, {"dh0", gradients.dh0}};
  }
  /// Sums over tokens, whose rounding depends on where the sequence is cut.
  ScanResults parameter_results() const {
    return {
        {"ddelta_bias", gradients.ddelta_bias}, {"dd", gradients.dd}, {"da_log", gradients.da_log}};
  }
};

inline ScanRun run_scan(const ScanDims& dims, const ScanInputs<double>& in,
                        const std::vector<double>& dout, const std::vector<double>& dh_last = {},
                        int threads = 1, DType dtype = DType::f32) {
  Scan scan(dims, in, dtype);
  scan.forward(threads);
  scan.backward(dout, dh_last, threads);
  EXPECT_TRUE(scan.guards_intact()) << "wrote outside a tensor";
  return {scan.outputs(), scan.gradient_values()};
}

inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

inline void expect_same_bits(const ScanResults& a, const ScanResults& b, const std::string& what) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(same_bits(a[i].second, b[i].second)) << a[i].first << " differs: " << what;
  }
}

inline void expect_near(const ScanResults& got, const ScanResults& want, double tolerance,
                        const std::string& what) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = worst_error(got[i].second, want[i].second);
    EXPECT_TRUE(error <= tolerance) << got[i].first << " off by " << error << ": " << what;
  }
}

/// What the double reference computes for the same inputs.
inline ScanRun reference_run(const ScanDims& dims, const ScanInputs<double>& in,
                             const std::vector<double>& dout,
                             const std::vector<double>& dh_last = {}) {
  return {scan_reference(dims, in), scan_reference_backward(dims, in, dout, dh_last)};
}

/// Rows [begin, end) of the middle dim of [outer, middle, inner].
inline std::vector<double> slice_middle(const std::vector<double>& x, std::int64_t outer,
                                        std::int64_t middle, std::int64_t inner, std::int64_t begin,
                                        std::int64_t end) {
  std::vector<double> out;
  for (std::int64_t o = 0; o < outer; ++o) {
    const auto row = x.begin() + (o * middle + begin) * inner;
    out.insert(out.end(), row, row + (end - begin) * inner);
  }
  return out;
}

/// Steps [begin, end) of every sequence, without h0; document starts count from `begin`.
inline ScanInputs<double> slice_steps(const ScanInputs<double>& in, const ScanDims& dims,
                                      std::int64_t begin, std::int64_t end) {
  const auto wide = [&](const std::vector<double>& x) {
    return slice_middle(x, dims.batch, dims.seq, dims.inner, begin, end);
  };
  const auto narrow = [&](const std::vector<double>& x) {
    return slice_middle(x, dims.batch, dims.seq, dims.state, begin, end);
  };
  ScanInputs<double> out = in;
  out.u = wide(in.u);
  out.delta = wide(in.delta);
  out.z = wide(in.z);
  out.b = narrow(in.b);
  out.c = narrow(in.c);
  out.h0.clear();
  out.doc_start.clear();
  if (in.doc_start.empty()) return out;
  for (std::int64_t b = 0; b < dims.batch; ++b) {
    for (std::int64_t t = begin; t < end; ++t) {
      out.doc_start.push_back(in.doc_start[b * dims.seq + t] - begin);
    }
  }
  return out;
}

/// Channels [begin, end).
inline ScanInputs<double> slice_channels(const ScanInputs<double>& in, const ScanDims& dims,
                                         std::int64_t begin, std::int64_t end) {
  const auto wide = [&](const std::vector<double>& x) {
    return slice_middle(x, dims.batch * dims.seq, dims.inner, 1, begin, end);
  };
  ScanInputs<double> out = in;
  out.u = wide(in.u);
  out.delta = wide(in.delta);
  out.z = wide(in.z);
  out.delta_bias = slice_middle(in.delta_bias, 1, dims.inner, 1, begin, end);
  out.d = slice_middle(in.d, 1, dims.inner, 1, begin, end);
  out.a_log = slice_middle(in.a_log, 1, dims.inner, dims.state, begin, end);
  if (!in.h0.empty()) {
    out.h0 = slice_middle(in.h0, dims.batch, dims.inner, dims.state, begin, end);
  }
  return out;
}

/// Joins pieces [outer, middle_i, inner] along the middle dim.
inline std::vector<double> join_middle(const std::vector<std::vector<double>>& pieces,
                                       std::int64_t outer) {
  std::vector<double> out;
  for (std::int64_t o = 0; o < outer; ++o) {
    for (const std::vector<double>& piece : pieces) {
      const auto size = static_cast<std::int64_t>(piece.size()) / outer;
      out.insert(out.end(), piece.begin() + o * size, piece.begin() + (o + 1) * size);
    }
  }
  return out;
}

/// Runs pieces of the sequence, cut at `cuts`, handing the state on forward and its gradient back,
/// and joins their results. Parameters' gradients are added.
inline ScanRun run_in_pieces(const ScanDims& dims, const ScanInputs<double>& in,
                             const std::vector<double>& dout, const std::vector<double>& dh_last,
                             const std::vector<std::int64_t>& cuts) {
  std::vector<std::int64_t> edges{0};
  edges.insert(edges.end(), cuts.begin(), cuts.end());
  edges.push_back(dims.seq);
  const std::size_t count = edges.size() - 1;

  std::vector<Scan> scans;
  scans.reserve(count);
  std::vector<double> state = in.h0;
  for (std::size_t i = 0; i < count; ++i) {
    ScanInputs<double> piece = slice_steps(in, dims, edges[i], edges[i + 1]);
    piece.h0 = state;
    scans.emplace_back(ScanDims{dims.batch, edges[i + 1] - edges[i], dims.inner, dims.state},
                       piece);
    scans.back().forward();
    state = scans.back().outputs().h_last;
  }
  ScanRun run{{{}, state}, ScanGradients(dims)};
  std::vector<std::vector<double>> out(count), du(count), ddelta(count), dz(count), db(count),
      dc(count);
  std::vector<double> carry = dh_last;
  for (std::size_t i = count; i-- > 0;) {
    scans[i].backward(slice_middle(dout, dims.batch, dims.seq, dims.inner, edges[i], edges[i + 1]),
                      carry);
    const ScanGradients g = scans[i].gradient_values();
    carry = g.dh0;
    out[i] = scans[i].outputs().out;
    du[i] = g.du;
    ddelta[i] = g.ddelta;
    dz[i] = g.dz;
    db[i] = g.db;
    dc[i] = g.dc;
    const auto add = [](std::vector<double>& sum, const std::vector<double>& x) {
      for (std::size_t j = 0; j < x.size(); ++j) sum[j] += x[j];
    };
    add(run.gradients.ddelta_bias, g.ddelta_bias);
    add(run.gradients.dd, g.dd);
    add(run.gradients.da_log, g.da_log);
  }
  run.out.out = join_middle(out, dims.batch);
  run.gradients.du = join_middle(du, dims.batch);
  run.gradients.ddelta = join_middle(ddelta, dims.batch);
  run.gradients.dz = join_middle(dz, dims.batch);
  run.gradients.db = join_middle(db, dims.batch);
  run.gradients.dc = join_middle(dc, dims.batch);
  run.gradients.dh0 = carry;
  return run;
}

}  // namespace jamba::test
