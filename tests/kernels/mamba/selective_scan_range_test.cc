// The scan over ranges of channels.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/mamba/scan_tools.h"

namespace jamba {
namespace {

using test::expect_near;
using test::expect_same_bits;
using test::Scan;
using test::ScanDims;
using test::ScanRun;

constexpr std::int64_t kInner = 2 * kScanGroup + 17;
const ScanDims kDims{2, 70, kInner, 5};

const ChannelRange kFirst{0, kScanGroup}, kSecond{kScanGroup, kScanGroup};
const ChannelRange kLast{2 * kScanGroup, 17}, kSecondAndLast{kScanGroup, -1};

struct Problem {
  test::ScanInputs<double> in = test::random_scan_inputs(kDims, 11);
  std::vector<double> dout = test::normal_values(kDims.activations(), 11, "dout");
  std::vector<double> dh_last = test::normal_values(kDims.states(), 11, "dh_last");

  Problem() {
    in.h0 = test::normal_values(kDims.states(), 11, "h0");
    in.doc_start = test::document_starts(kDims, {30});
  }
  ScanRun whole() const { return test::run_scan(kDims, in, dout, dh_last); }
  /// Forward and backward, range by range.
  ScanRun run(const std::vector<ChannelRange>& ranges, int threads = 1) const {
    Scan scan(kDims, in);
    for (const ChannelRange& range : ranges) scan.forward(threads, range);
    Write write = Write::overwrite;
    for (const ChannelRange& range : ranges) {
      scan.backward(dout, dh_last, threads, range, write);
      write = Write::accumulate;
    }
    EXPECT_TRUE(scan.guards_intact());
    return {scan.outputs(), scan.gradient_values()};
  }
};

TEST(SelectiveScanRange, SingleGroupsInOrderGiveTheBitsOfOneCall) {
  const Problem p;
  const ScanRun whole = p.whole();
  for (const int threads : {1, 2}) {
    const ScanRun got = p.run({kFirst, kSecond, kLast}, threads);
    expect_same_bits(got.exact_results(), whole.exact_results(), "ranges");
    expect_same_bits(got.parameter_results(), whole.parameter_results(), "ranges");
  }
}

TEST(SelectiveScanRange, AnyOrderChangesTheRoundingOfBAndCAlone) {
  const Problem p;
  const ScanRun whole = p.whole();
  for (const auto& ranges : {std::vector{kLast, kFirst, kSecond}, {kSecondAndLast, kFirst}}) {
    ScanRun got = p.run(ranges);
    expect_near({{"db", got.gradients.db}, {"dc", got.gradients.dc}},
                {{"db", whole.gradients.db}, {"dc", whole.gradients.dc}}, 1e-6, "ranges");
    got.gradients.db = whole.gradients.db;
    got.gradients.dc = whole.gradients.dc;
    expect_same_bits(got.exact_results(), whole.exact_results(), "ranges");
    expect_same_bits(got.parameter_results(), whole.parameter_results(), "ranges");
  }
}

/// `untouched(value)` of every element outside the range, and of none inside. Element i belongs to
/// channel i / per_channel % kInner.
template <class Untouched>
void expect_only(const std::vector<double>& x, std::int64_t per_channel, const ChannelRange& range,
                 const char* what, const Untouched& untouched) {
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::int64_t channel = static_cast<std::int64_t>(i) / per_channel % kInner;
    const bool inside = channel >= range.begin && channel < range.begin + range.count;
    wrong += untouched(x[i]) == inside;
  }
  EXPECT_EQ(wrong, 0) << what;
}

TEST(SelectiveScanRange, LeavesOtherChannelsAlone) {
  const Problem p;
  Scan scan(kDims, p.in);
  scan.forward(1, kSecond);
  scan.backward(p.dout, p.dh_last, 1, kSecond);
  const auto never_written = [](double x) { return std::isnan(x); };
  const auto zero = [](double x) { return x == 0; };
  const test::ScanGradients g = scan.gradient_values();
  expect_only(scan.outputs().out, 1, kSecond, "out", never_written);
  expect_only(scan.saved_y(), 1, kSecond, "y", never_written);
  expect_only(scan.outputs().h_last, kDims.state, kSecond, "h_last", never_written);
  expect_only(g.du, 1, kSecond, "du", never_written);
  expect_only(g.ddelta, 1, kSecond, "ddelta", never_written);
  expect_only(g.dz, 1, kSecond, "dz", never_written);
  expect_only(g.dh0, kDims.state, kSecond, "dh0", never_written);
  expect_only(g.ddelta_bias, 1, kSecond, "ddelta_bias", zero);
  expect_only(g.dd, 1, kSecond, "dd", zero);
  expect_only(g.da_log, kDims.state, kSecond, "da_log", zero);
}

TEST(SelectiveScanRange, MayBeEmpty) {
  const Problem p;
  Scan scan(kDims, p.in);
  const ChannelRange none{kScanGroup, 0};
  scan.forward(1, none);
  scan.backward(p.dout, p.dh_last, 1, none);
  EXPECT_TRUE(std::isnan(scan.outputs().out[0]));
  EXPECT_EQ(scan.gradient_values().db, std::vector<double>(kDims.projections(), 0.0));
}

TEST(SelectiveScanRange, RejectsOtherEnds) {
  const Problem p;
  Scan scan(kDims, p.in);
  for (const ChannelRange& range : {ChannelRange{1, kScanGroup - 1},
                                    {0, 16},
                                    {-kScanGroup, kScanGroup},
                                    {0, 3 * kScanGroup},
                                    {3 * kScanGroup, -1}}) {
    EXPECT_THROW(scan.forward(1, range), LogicError) << range.begin << " + " << range.count;
    EXPECT_THROW(scan.backward(p.dout, {}, 1, range), LogicError);
  }
}

}  // namespace
}  // namespace jamba
