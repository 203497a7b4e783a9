#pragma once
// A selective scan on owned tensors: random inputs, one call of forward and backward.

#include <algorithm>

#include "kernels/mamba/selective_scan.h"
#include "tests/kernels/mamba/scan_reference.h"
#include "tests/support/tensors.h"

namespace jamba::test {

/// Inputs with the statistics of a trained model: dt around 0.05, A from -1 to -state.
inline ScanInputs<double> random_scan_inputs(const ScanDims& dims, std::uint64_t seed) {
  ScanInputs<double> in;
  in.u = normal_values(dims.activations(), seed, "u");
  in.delta = normal_values(dims.activations(), seed, "delta");
  in.z = normal_values(dims.activations(), seed, "z");
  in.b = normal_values(dims.projections(), seed, "b");
  in.c = normal_values(dims.projections(), seed, "c");
  in.delta_bias = normal_values(dims.inner, seed, "delta_bias");
  for (double& x : in.delta_bias) x -= 2;
  in.d = normal_values(dims.inner, seed, "d");
  in.a_log = normal_values(dims.inner * dims.state, seed, "a_log", 0.1);
  for (std::size_t i = 0; i < in.a_log.size(); ++i) {
    in.a_log[i] += std::log(static_cast<double>(i % static_cast<std::size_t>(dims.state) + 1));
  }
  return in;
}

/// Documents that begin at the given steps of every sequence; step 0 begins one only if listed.
inline std::vector<std::int64_t> document_starts(const ScanDims& dims,
                                                 const std::vector<std::int64_t>& starts) {
  std::vector<std::int64_t> out;
  for (std::int64_t b = 0; b < dims.batch; ++b) {
    std::int64_t current = -1000;
    for (std::int64_t t = 0; t < dims.seq; ++t) {
      if (std::find(starts.begin(), starts.end(), t) != starts.end()) current = t;
      out.push_back(current);
    }
  }
  return out;
}

/// Owns all tensors of one scan. Gradients of parameters start at zero.
class Scan {
 public:
  Scan(const ScanDims& dims, const ScanInputs<double>& in, DType dtype = DType::f32)
      : dims_(dims),
        dtype_(dtype),
        u_(dtype, wide(), in.u),
        delta_(dtype, wide(), in.delta),
        z_(dtype, wide(), in.z),
        b_(DType::f32, narrow(), in.b),
        c_(DType::f32, narrow(), in.c),
        delta_bias_(DType::f32, {dims.inner}, in.delta_bias),
        d_(DType::f32, {dims.inner}, in.d),
        a_log_(DType::f32, {dims.inner, dims.state}, in.a_log),
        states_(DType::u8, {scan_states_bytes(dims.batch, dims.seq, dims.inner, dims.state)}),
        y_(dtype, wide()),
        out_(dtype, wide()),
        h_last_(DType::f32, {dims.batch, dims.inner, dims.state}),
        du_(dtype, wide()),
        ddelta_(dtype, wide()),
        dz_(dtype, wide()),
        db_(DType::f32, narrow()),
        dc_(DType::f32, narrow()),
        ddelta_bias_(DType::f32, {dims.inner}, std::vector<double>(dims.inner)),
        dd_(DType::f32, {dims.inner}, std::vector<double>(dims.inner)),
        da_log_(DType::f32, {dims.inner, dims.state}, std::vector<double>(dims.inner * dims.state)),
        dh0_(DType::f32, {dims.batch, dims.inner, dims.state}) {
    if (!in.h0.empty()) {
      h0_.emplace_back(DType::f32, std::vector{dims.batch, dims.inner, dims.state}, in.h0);
    }
    if (!in.doc_start.empty()) {
      doc_start_.emplace_back(DType::i32, std::vector{dims.batch, dims.seq},
                              std::vector<double>(in.doc_start.begin(), in.doc_start.end()));
    }
  }

  SelectiveScanInputs inputs() const {
    return {.u = u_.tensor(),
            .delta = delta_.tensor(),
            .z = z_.tensor(),
            .b = b_.tensor(),
            .c = c_.tensor(),
            .delta_bias = delta_bias_.tensor(),
            .d = d_.tensor(),
            .a_log = a_log_.tensor(),
            .h0 = h0_.empty() ? Tensor{} : h0_[0].tensor(),
            .doc_start = doc_start_.empty() ? Tensor{} : doc_start_[0].tensor()};
  }
  SelectiveScanSaved saved() const { return {states_.tensor(), y_.tensor()}; }
  SelectiveScanGradients gradients() const {
    return {.du = du_.tensor(),
            .ddelta = ddelta_.tensor(),
            .dz = dz_.tensor(),
            .db = db_.tensor(),
            .dc = dc_.tensor(),
            .ddelta_bias = ddelta_bias_.tensor(),
            .dd = dd_.tensor(),
            .da_log = da_log_.tensor(),
            .dh0 = dh0_.tensor()};
  }

  void forward(int threads = 1, ChannelRange range = {}) {
    Stream stream = test::make_stream(threads);
    Arena scratch(test::device());
    scratch.poison_on(stream);
    selective_scan_forward(stream, scratch, out_.tensor(), h_last_.tensor(), saved(), inputs(),
                           range);
  }
  /// dh_last empty: absent.
  void backward(const std::vector<double>& dout, const std::vector<double>& dh_last = {},
                int threads = 1, ChannelRange range = {}, Write write_bc = Write::overwrite) {
    Stream stream = test::make_stream(threads);
    Arena scratch(test::device());
    scratch.poison_on(stream);
    const GuardedTensor dy(dtype_, wide(), dout);
    std::vector<GuardedTensor> dh;
    if (!dh_last.empty()) {
      dh.emplace_back(DType::f32, std::vector{dims_.batch, dims_.inner, dims_.state}, dh_last);
    }
    selective_scan_backward(stream, scratch, gradients(), dy.tensor(), dy.tensor(),
                            dh.empty() ? Tensor{} : dh[0].tensor(), saved(), inputs(), range,
                            write_bc);
  }

  /// What the tensors hold, rounded to their dtypes.
  ScanInputs<double> rounded_inputs() const {
    ScanInputs<double> in;
    in.u = u_.values();
    in.delta = delta_.values();
    in.z = z_.values();
    in.b = b_.values();
    in.c = c_.values();
    in.delta_bias = delta_bias_.values();
    in.d = d_.values();
    in.a_log = a_log_.values();
    if (!h0_.empty()) in.h0 = h0_[0].values();
    if (!doc_start_.empty()) {
      const std::vector<double> starts = doc_start_[0].values();
      in.doc_start.assign(starts.begin(), starts.end());
    }
    return in;
  }
  ScanOutputs<double> outputs() const { return {out_.values(), h_last_.values()}; }
  std::vector<double> saved_y() const { return y_.values(); }
  ScanGradients gradient_values() const {
    ScanGradients g(dims_);
    g.du = du_.values();
    g.ddelta = ddelta_.values();
    g.dz = dz_.values();
    g.db = db_.values();
    g.dc = dc_.values();
    g.ddelta_bias = ddelta_bias_.values();
    g.dd = dd_.values();
    g.da_log = da_log_.values();
    g.dh0 = dh0_.values();
    return g;
  }
  bool guards_intact() const {
    const GuardedTensor* all[] = {&u_,  &delta_,  &z_,      &b_,  &c_,   &delta_bias_,
                                  &d_,  &a_log_,  &states_, &y_,  &out_, &h_last_,
                                  &du_, &ddelta_, &dz_,     &db_, &dc_,  &ddelta_bias_,
                                  &dd_, &da_log_, &dh0_};
    return std::all_of(std::begin(all), std::end(all),
                       [](const GuardedTensor* t) { return t->guards_intact(); });
  }

 private:
  std::vector<std::int64_t> wide() const { return {dims_.batch, dims_.seq, dims_.inner}; }
  std::vector<std::int64_t> narrow() const { return {dims_.batch, dims_.seq, dims_.state}; }

  ScanDims dims_;
  DType dtype_;
  GuardedTensor u_, delta_, z_, b_, c_, delta_bias_, d_, a_log_, states_, y_, out_, h_last_;
  GuardedTensor du_, ddelta_, dz_, db_, dc_, ddelta_bias_, dd_, da_log_, dh0_;
  std::vector<GuardedTensor> h0_, doc_start_;  // empty: absent
};

}  // namespace jamba::test
