// Larger shapes against the double reference, extreme values, and dtypes.

#include <gtest/gtest.h>

#include <complex>

#include "kernels/core/rng.h"
#include "tests/kernels/mamba/scan_tools.h"

namespace jamba {
namespace {

using test::expect_near;
using test::ScanDims;
using test::ScanInputs;
using test::ScanRun;
using Complex = std::complex<double>;

constexpr double kTolerance = 1e-5;

/// What a float32 tensor keeps of these values.
std::vector<double> as_floats(std::vector<double> x) {
  for (double& v : x) v = static_cast<float>(v);
  return x;
}

ScanInputs<double> as_floats(ScanInputs<double> in) {
  for (auto* x :
       {&in.u, &in.delta, &in.z, &in.b, &in.c, &in.delta_bias, &in.d, &in.a_log, &in.h0}) {
    *x = as_floats(*x);
  }
  return in;
}

void expect_matches_reference(const ScanDims& dims, const ScanInputs<double>& inputs,
                              const std::vector<double>& gradient, const std::string& what) {
  const ScanInputs<double> in = as_floats(inputs);
  const std::vector<double> dout = as_floats(gradient);
  const std::vector<double> dh_last = as_floats(test::normal_values(dims.states(), 3, "dh_last"));
  const ScanRun got = test::run_scan(dims, in, dout, dh_last);
  const ScanRun want = test::reference_run(dims, in, dout, dh_last);
  expect_near(got.exact_results(), want.exact_results(), kTolerance, what);
  expect_near(got.parameter_results(), want.parameter_results(), kTolerance, what);
}

void expect_matches_reference(const ScanDims& dims, const ScanInputs<double>& in,
                              const std::string& what) {
  expect_matches_reference(dims, in, test::normal_values(dims.activations(), 3, "dout"), what);
}

TEST(SelectiveScanShapes, MatchTheDoubleReference) {
  for (const ScanDims& dims :
       {ScanDims{1, 1, 16, 16}, ScanDims{3, 63, 17, 4}, ScanDims{1, 64, 48, 8},
        ScanDims{1, 65, 16, 24}, ScanDims{3, 131, 48, 16}, ScanDims{1, 127, 33, 1},
        ScanDims{1, 129, 8, 7}, ScanDims{2, 257, 150, 16}, ScanDims{1, 70, 300, 3},
        // On CUDA, lanes of two and of four channels.
        ScanDims{1, 70, 401, 16}, ScanDims{2, 67, 430, 13}}) {
    ScanInputs<double> in = test::random_scan_inputs(dims, 3);
    const std::string what =
        fmt::format("[{}, {}, {}] x {}", dims.batch, dims.seq, dims.inner, dims.state);
    expect_matches_reference(dims, in, what);
    in.h0 = test::normal_values(dims.states(), 3, "h0");
    in.doc_start = test::document_starts(dims, {40, 64, 100});
    expect_matches_reference(dims, in, what + " with documents");
  }
}

/// On CUDA, few channels are cut along time where documents begin; in this many steps, wherever
/// that is.
TEST(SelectiveScanShapes, MatchWithDocumentsAnywhere) {
  const ScanDims dims{2, 700, 9, 16};
  ScanInputs<double> in = test::random_scan_inputs(dims, 3);
  in.h0 = test::normal_values(dims.states(), 3, "h0");
  for (const std::vector<std::int64_t>& starts :
       std::vector<std::vector<std::int64_t>>{{},
                                              {0},
                                              {699},
                                              {350},
                                              {0, 1, 2, 3},
                                              {15, 16, 17, 63, 64, 65, 190, 320, 447, 448, 698}}) {
    in.doc_start = test::document_starts(dims, starts);
    expect_matches_reference(dims, in, fmt::format("documents at {}", fmt::join(starts, ", ")));
  }
}

/// Errors in the decay compound over 1 / (1 - a) steps.
TEST(SelectiveScanShapes, KeepALongMemoryAccurate) {
  const ScanDims dims{1, 2049, 16, 2};
  ScanInputs<double> in = test::random_scan_inputs(dims, 3);
  for (double& x : in.delta) x = 0.1 * x - 7;  // dt near 1e-3
  for (double& x : in.delta_bias) x = 0;
  expect_matches_reference(dims, in, "dt near 1e-3");
}

TEST(SelectiveScanValues, AcceptsExtremeDelta) {
  const ScanDims dims{1, 70, 17, 5};
  for (const double delta : {-100.0, -30.0, 19.99, 20.01, 30.0, 89.0, 1e4}) {
    ScanInputs<double> in = test::random_scan_inputs(dims, 3);
    for (std::size_t i = 0; i < in.delta.size(); i += 3) in.delta[i] = delta;
    for (double& x : in.delta_bias) x = 0;
    expect_matches_reference(dims, in, fmt::format("delta {}", delta));
  }
}

TEST(SelectiveScanValues, AcceptsExtremeDecay) {
  const ScanDims dims{1, 70, 17, 5};
  for (const double a : {1e-4, 1.0, 90.0, 1e3, 1e10}) {
    ScanInputs<double> in = test::random_scan_inputs(dims, 3);
    for (std::size_t i = 0; i < in.a_log.size(); i += 2) in.a_log[i] = std::log(a);
    expect_matches_reference(dims, in, fmt::format("A = {}", -a));
  }
}

TEST(SelectiveScanValues, AcceptsExtremeGates) {
  const ScanDims dims{1, 70, 17, 5};
  for (const double z : {0.0, 25.0, -25.0, 100.0, -100.0}) {
    ScanInputs<double> in = test::random_scan_inputs(dims, 3);
    for (std::size_t i = 0; i < in.z.size(); i += 2) in.z[i] = z;
    expect_matches_reference(dims, in, fmt::format("z {}", z));
  }
}

/// Without input the state decays into the denormals, which workers flush to zero.
TEST(SelectiveScanValues, LetsAStateDieOut) {
  const ScanDims dims{1, 257, 17, 5};
  ScanInputs<double> in = test::random_scan_inputs(dims, 3);
  in.h0 = test::normal_values(dims.states(), 3, "h0");
  for (std::size_t i = 0; i < in.u.size(); ++i) {
    in.u[i] = 0;
    in.delta[i] = 0.5;
  }
  for (double& x : in.delta_bias) x = 0;
  in = as_floats(in);
  const std::vector<double> dout = as_floats(test::normal_values(dims.activations(), 3, "dout"));
  ScanRun got = test::run_scan(dims, in, dout), want = test::reference_run(dims, in, dout);
  for (std::size_t i = 0; i < got.out.h_last.size(); ++i) {
    EXPECT_TRUE(std::abs(got.out.h_last[i] - want.out.h_last[i]) <= 1e-30);
  }
  got.out.h_last = want.out.h_last;
  expect_near(got.exact_results(), want.exact_results(), kTolerance, "u = 0");
  expect_near(got.parameter_results(), want.parameter_results(), kTolerance, "u = 0");
}

TEST(SelectiveScanValues, GivesZeroGradientsForZero) {
  const ScanDims dims{1, 70, 17, 5};
  const ScanRun run = test::run_scan(dims, test::random_scan_inputs(dims, 3),
                                     std::vector<double>(dims.activations()));
  for (const auto& results : {run.exact_results(), run.parameter_results()}) {
    for (const auto& [name, values] : results) {
      if (name == "out" || name == "h_last") continue;
      for (const double x : values) EXPECT_EQ(x, 0) << name;
    }
  }
}

double round_to_bf16(double x) { return static_cast<float>(bfloat16(static_cast<float>(x))); }

TEST(SelectiveScanDTypes, BFloat16EqualsFloat32OnRoundedInputs) {
  const ScanDims dims{2, 70, 41, 6};
  ScanInputs<double> in = test::random_scan_inputs(dims, 3);
  in.h0 = test::normal_values(dims.states(), 3, "h0");
  in.doc_start = test::document_starts(dims, {40});
  std::vector<double> dout = test::normal_values(dims.activations(), 3, "dout");
  for (auto* x : {&in.u, &in.delta, &in.z, &dout}) {
    for (double& v : *x) v = round_to_bf16(v);
  }
  const ScanRun narrow = test::run_scan(dims, in, dout, {}, 1, DType::bf16);
  const ScanRun wide = test::run_scan(dims, in, dout);
  const auto rounded = [](std::vector<double> x) {
    for (double& v : x) v = round_to_bf16(v);
    return x;
  };
  EXPECT_TRUE(test::same_bits(narrow.out.out, rounded(wide.out.out)));
  EXPECT_TRUE(test::same_bits(narrow.out.h_last, wide.out.h_last));
  EXPECT_TRUE(test::same_bits(narrow.gradients.du, rounded(wide.gradients.du)));
  EXPECT_TRUE(test::same_bits(narrow.gradients.ddelta, rounded(wide.gradients.ddelta)));
  for (std::size_t i = 0; i < wide.gradients.dz.size(); ++i) {  // reads the rounded y
    const double want = wide.gradients.dz[i];
    EXPECT_TRUE(std::abs(narrow.gradients.dz[i] - want) <= 0x1p-7 * std::abs(want));
  }
  test::expect_same_bits(narrow.parameter_results(), wide.parameter_results(), "bfloat16");
  EXPECT_TRUE(test::same_bits(narrow.gradients.db, wide.gradients.db));
  EXPECT_TRUE(test::same_bits(narrow.gradients.dc, wide.gradients.dc));
  EXPECT_TRUE(test::same_bits(narrow.gradients.dh0, wide.gradients.dh0));
}

/// in + step * direction, for every input that has a gradient.
template <class T>
ScanInputs<T> moved(const ScanInputs<double>& in, const ScanInputs<double>& direction, T step) {
  ScanInputs<T> out;
  const auto move = [&](std::vector<T> ScanInputs<T>::*field,
                        std::vector<double> ScanInputs<double>::*source) {
    for (std::size_t i = 0; i < (in.*source).size(); ++i) {
      (out.*field).push_back((in.*source)[i] + step * (direction.*source)[i]);
    }
  };
  move(&ScanInputs<T>::u, &ScanInputs<double>::u);
  move(&ScanInputs<T>::delta, &ScanInputs<double>::delta);
  move(&ScanInputs<T>::z, &ScanInputs<double>::z);
  move(&ScanInputs<T>::b, &ScanInputs<double>::b);
  move(&ScanInputs<T>::c, &ScanInputs<double>::c);
  move(&ScanInputs<T>::delta_bias, &ScanInputs<double>::delta_bias);
  move(&ScanInputs<T>::d, &ScanInputs<double>::d);
  move(&ScanInputs<T>::a_log, &ScanInputs<double>::a_log);
  move(&ScanInputs<T>::h0, &ScanInputs<double>::h0);
  out.doc_start = in.doc_start;
  return out;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

struct Directional {
  ScanDims dims{2, 70, 19, 5};
  ScanInputs<double> in, direction;
  std::vector<double> dout, dh_last;

  Directional() {
    in = as_floats(test::random_scan_inputs(dims, 3));
    in.h0 = as_floats(test::normal_values(dims.states(), 3, "h0"));
    in.doc_start = test::document_starts(dims, {33});
    direction = test::random_scan_inputs(dims, 4);
    direction.h0 = test::normal_values(dims.states(), 4, "h0");
    dout = as_floats(test::normal_values(dims.activations(), 3, "dout"));
    dh_last = as_floats(test::normal_values(dims.states(), 3, "dh_last"));
  }
  template <class T>
  T loss_along(T step) const {
    const auto r = scan_reference(dims, moved<T>(in, direction, step));
    T sum = 0;
    for (std::size_t i = 0; i < r.out.size(); ++i) sum += dout[i] * r.out[i];
    for (std::size_t i = 0; i < r.h_last.size(); ++i) sum += dh_last[i] * r.h_last[i];
    return sum;
  }
  double complex_step() const { return loss_along(Complex(0, 1e-30)).imag() / 1e-30; }
  double along(const test::ScanGradients& g) const {
    return dot(g.du, direction.u) + dot(g.ddelta, direction.delta) + dot(g.dz, direction.z) +
           dot(g.db, direction.b) + dot(g.dc, direction.c) +
           dot(g.ddelta_bias, direction.delta_bias) + dot(g.dd, direction.d) +
           dot(g.da_log, direction.a_log) + dot(g.dh0, direction.h0);
  }
};

TEST(SelectiveScanReference, BackwardEqualsComplexStepAndCentralDifference) {
  const Directional d;
  const double exact = d.complex_step();
  const double analytic = d.along(scan_reference_backward(d.dims, d.in, d.dout, d.dh_last));
  EXPECT_TRUE(std::abs(analytic / exact - 1) <= 1e-13) << analytic << " for " << exact;
  const double central = (d.loss_along(1e-6) - d.loss_along(-1e-6)) / 2e-6;
  EXPECT_TRUE(std::abs(central / exact - 1) <= 1e-7) << central << " for " << exact;
}

/// <dout, J v> = <J^T dout, v>.
TEST(SelectiveScanDotTest, BackwardIsTheTransposeOfForward) {
  const Directional d;
  const double exact = d.complex_step();
  const double kernel = d.along(test::run_scan(d.dims, d.in, d.dout, d.dh_last).gradients);
  EXPECT_TRUE(std::abs(kernel / exact - 1) <= 1e-5) << kernel << " for " << exact;
}

}  // namespace
}  // namespace jamba
