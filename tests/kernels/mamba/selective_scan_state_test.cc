// States, document boundaries, and how the scan may be cut over steps, channels and threads.

#include <gtest/gtest.h>

#include <limits>

#include "kernels/mamba/selective_scan_plan.h"
#include "tests/kernels/mamba/scan_tools.h"

namespace jamba {
namespace {

using test::expect_near;
using test::expect_same_bits;
using test::ScanDims;
using test::ScanInputs;
using test::ScanRun;

struct Problem {
  ScanDims dims;
  ScanInputs<double> in;
  std::vector<double> dout, dh_last;
};

Problem make_problem(const ScanDims& dims, const std::vector<std::int64_t>& document_starts = {}) {
  Problem p{dims, test::random_scan_inputs(dims, 11),
            test::normal_values(dims.activations(), 11, "dout"),
            test::normal_values(dims.states(), 11, "dh_last")};
  p.in.h0 = test::normal_values(dims.states(), 11, "h0");
  if (!document_starts.empty()) {
    p.in.doc_start = test::document_starts(dims, document_starts);
  }
  return p;
}

ScanRun run(const Problem& p, int threads = 1) {
  return test::run_scan(p.dims, p.in, p.dout, p.dh_last, threads);
}

ScanRun run_in_pieces(const Problem& p, const std::vector<std::int64_t>& cuts) {
  return test::run_in_pieces(p.dims, p.in, p.dout, p.dh_last, cuts);
}

TEST(SelectiveScanState, AnyCutOfTheStepsGivesTheSameBits) {
  const Problem p = make_problem({2, 20, 19, 5}, {6, 13});
  const ScanRun whole = run(p);
  for (std::int64_t cut = 0; cut <= p.dims.seq; ++cut) {
    const ScanRun pieces = run_in_pieces(p, {cut});
    const std::string what = fmt::format("cut at {}", cut);
    expect_same_bits(pieces.exact_results(), whole.exact_results(), what);
    expect_near(pieces.parameter_results(), whole.parameter_results(), 1e-5, what);
  }
}

TEST(SelectiveScanState, ThreePiecesOffChunkEdgesGiveTheSameBits) {
  const Problem p = make_problem({2, 200, 24, 16}, {50, 128});
  const ScanRun whole = run(p);
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{77, 123}, {64, 128}, {1, 199}}) {
    const ScanRun pieces = run_in_pieces(p, cuts);
    const std::string what = fmt::format("cuts at {}, {}", cuts[0], cuts[1]);
    expect_same_bits(pieces.exact_results(), whole.exact_results(), what);
    expect_near(pieces.parameter_results(), whole.parameter_results(), 1e-5, what);
  }
}

/// Tensor parallelism: each part of the channels gives its share of db and dc.
TEST(SelectiveScanState, PartsOfTheChannelsAddUp) {
  const Problem p = make_problem({1, 70, 40, 16}, {9});
  const ScanRun whole = run(p);
  std::vector<double> db(whole.gradients.db.size()), dc(db);
  std::vector<std::vector<double>> out, du;
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 17}, {17, 40}}) {
    Problem part = p;
    part.dims.inner = end - begin;
    part.in = slice_channels(p.in, p.dims, begin, end);
    part.dout = test::slice_middle(p.dout, p.dims.tokens(), p.dims.inner, 1, begin, end);
    part.dh_last =
        test::slice_middle(p.dh_last, p.dims.batch, p.dims.inner, p.dims.state, begin, end);
    const ScanRun share = run(part);
    out.push_back(share.out.out);
    du.push_back(share.gradients.du);
    for (std::size_t i = 0; i < db.size(); ++i) db[i] += share.gradients.db[i];
    for (std::size_t i = 0; i < dc.size(); ++i) dc[i] += share.gradients.dc[i];
  }
  expect_same_bits({{"out", test::join_middle(out, p.dims.tokens())},
                    {"du", test::join_middle(du, p.dims.tokens())}},
                   {{"out", whole.out.out}, {"du", whole.gradients.du}}, "channels cut at 17");
  expect_near({{"db", db}, {"dc", dc}}, {{"db", whole.gradients.db}, {"dc", whole.gradients.dc}},
              1e-5, "channels cut at 17");
}

TEST(SelectiveScanState, NoStepsPassTheStateOn) {
  const Problem p = make_problem({2, 0, 17, 4});
  const ScanRun r = run(p);
  std::vector<double> h0, dh_last;
  for (const double x : p.in.h0) h0.push_back(static_cast<float>(x));
  for (const double x : p.dh_last) dh_last.push_back(static_cast<float>(x));
  EXPECT_TRUE(test::same_bits(r.out.h_last, h0));
  EXPECT_TRUE(test::same_bits(r.gradients.dh0, dh_last));
}

TEST(SelectiveScanState, AbsentStatesAreZeroStates) {
  Problem p = make_problem({1, 70, 16, 4});
  p.in.h0.assign(p.in.h0.size(), 0.0);
  p.dh_last.assign(p.dh_last.size(), 0.0);
  const ScanRun zeros = run(p);
  p.in.h0.clear();
  p.dh_last.clear();
  expect_same_bits(run(p).exact_results(), zeros.exact_results(), "absent states");
}

TEST(SelectiveScanState, ForwardAloneNeedsNoSavedTensors) {
  const Problem p = make_problem({1, 130, 20, 16}, {3});
  test::Scan saving(p.dims, p.in);
  saving.forward();
  test::Scan alone(p.dims, p.in);
  Stream stream = test::make_stream(1);
  Arena scratch(test::device());
  scratch.poison_on(stream);
  const test::GuardedTensor out(DType::f32, {1, 130, 20}), h_last(DType::f32, {1, 20, 16});
  selective_scan_forward(stream, scratch, out.tensor(), h_last.tensor(), {}, alone.inputs());
  EXPECT_TRUE(test::same_bits(out.values(), saving.outputs().out));
  EXPECT_TRUE(test::same_bits(h_last.values(), saving.outputs().h_last));
}

/// Documents in one sequence equal the same documents on their own.
void expect_equals_separate_documents(const std::vector<std::int64_t>& starts, std::int64_t seq) {
  const Problem p = make_problem({1, seq, 19, 6}, starts);
  const ScanRun whole = run(p);
  std::vector<std::vector<double>> out, du, ddelta, dz, db, dc;
  std::vector<std::int64_t> edges = starts;
  if (edges.front() != 0) edges.insert(edges.begin(), 0);
  edges.push_back(seq);
  for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
    Problem document = p;
    document.dims.seq = edges[i + 1] - edges[i];
    document.in = slice_steps(p.in, p.dims, edges[i], edges[i + 1]);
    document.in.doc_start.clear();
    if (edges[i] == 0 && starts.front() != 0) document.in.h0 = p.in.h0;
    document.dout = test::slice_middle(p.dout, 1, seq, p.dims.inner, edges[i], edges[i + 1]);
    if (edges[i + 1] != seq) document.dh_last.clear();
    const ScanRun r = run(document);
    out.push_back(r.out.out);
    du.push_back(r.gradients.du);
    ddelta.push_back(r.gradients.ddelta);
    dz.push_back(r.gradients.dz);
    db.push_back(r.gradients.db);
    dc.push_back(r.gradients.dc);
  }
  expect_same_bits({{"out", test::join_middle(out, 1)},
                    {"du", test::join_middle(du, 1)},
                    {"ddelta", test::join_middle(ddelta, 1)},
                    {"dz", test::join_middle(dz, 1)},
                    {"db", test::join_middle(db, 1)},
                    {"dc", test::join_middle(dc, 1)}},
                   {{"out", whole.out.out},
                    {"du", whole.gradients.du},
                    {"ddelta", whole.gradients.ddelta},
                    {"dz", whole.gradients.dz},
                    {"db", whole.gradients.db},
                    {"dc", whole.gradients.dc}},
                   fmt::format("documents at {}", fmt::join(starts, ", ")));
}

TEST(SelectiveScanResets, PackedDocumentsEqualSeparateOnes) {
  expect_equals_separate_documents({0}, 70);
  expect_equals_separate_documents({69}, 70);
  expect_equals_separate_documents({0, 69}, 70);
  expect_equals_separate_documents({10, 11, 12}, 70);
  expect_equals_separate_documents({63}, 130);
  expect_equals_separate_documents({64}, 130);
  expect_equals_separate_documents({65}, 130);
  expect_equals_separate_documents({0, 64, 128}, 130);
}

TEST(SelectiveScanResets, IgnoreTheInitialStateAtStepZero) {
  const Problem p = make_problem({2, 5, 17, 3}, {0});
  Problem other = p;
  other.in.h0.assign(p.in.h0.size(), std::numeric_limits<double>::infinity());
  const ScanRun r = run(p);
  expect_same_bits(run(other).exact_results(), r.exact_results(), "another h0");
  EXPECT_TRUE(test::same_bits(r.gradients.dh0, std::vector<double>(p.in.h0.size())));
}

/// Values of steps [begin, end) of a [batch, seq, width] result.
std::vector<double> steps(const std::vector<double>& x, const ScanDims& dims, std::int64_t width,
                          std::int64_t begin, std::int64_t end) {
  return test::slice_middle(x, dims.batch, dims.seq, width, begin, end);
}

TEST(SelectiveScanResets, KeepNonFiniteValuesInTheirDocument) {
  constexpr std::int64_t kStart = 67;
  const Problem p = make_problem({1, 100, 21, 5}, {0, kStart});
  const ScanRun clean = run(p);
  for (const double poison :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (const bool second : {false, true}) {  // the poisoned document
      Problem dirty = p;
      const std::int64_t t = second ? 80 : 20;
      dirty.in.u[t * p.dims.inner + 3] = poison;
      dirty.in.delta[t * p.dims.inner + 4] = poison;
      dirty.in.b[t * p.dims.state + 1] = poison;
      dirty.in.c[t * p.dims.state + 2] = poison;
      dirty.dout[t * p.dims.inner + 5] = poison;
      const ScanRun r = run(dirty);
      const std::int64_t begin = second ? 0 : kStart, end = second ? kStart : p.dims.seq;
      const auto wide = [&](const std::vector<double>& x) {
        return steps(x, p.dims, p.dims.inner, begin, end);
      };
      const auto narrow = [&](const std::vector<double>& x) {
        return steps(x, p.dims, p.dims.state, begin, end);
      };
      expect_same_bits({{"out", wide(r.out.out)},
                        {"du", wide(r.gradients.du)},
                        {"ddelta", wide(r.gradients.ddelta)},
                        {"dz", wide(r.gradients.dz)},
                        {"db", narrow(r.gradients.db)},
                        {"dc", narrow(r.gradients.dc)}},
                       {{"out", wide(clean.out.out)},
                        {"du", wide(clean.gradients.du)},
                        {"ddelta", wide(clean.gradients.ddelta)},
                        {"dz", wide(clean.gradients.dz)},
                        {"db", narrow(clean.gradients.db)},
                        {"dc", narrow(clean.gradients.dc)}},
                       second ? "poison in document 2" : "poison in document 1");
    }
  }
}

TEST(SelectiveScanResets, ShowNonFiniteValuesInTheirDocument) {
  const Problem p = make_problem({1, 70, 16, 4});
  for (const bool in_delta : {false, true}) {
    Problem dirty = p;
    (in_delta ? dirty.in.delta : dirty.in.u)[66 * p.dims.inner + 3] =
        std::numeric_limits<double>::quiet_NaN();
    const ScanRun r = run(dirty);
    EXPECT_TRUE(std::isnan(r.out.out[66 * p.dims.inner + 3]));
    EXPECT_TRUE(std::isnan(r.out.out[69 * p.dims.inner + 3]));
    EXPECT_TRUE(std::isnan(r.gradients.db[0]) || std::isnan(r.gradients.db[66 * p.dims.state]));
    EXPECT_TRUE(std::isnan(r.gradients.da_log[3 * p.dims.state]));
  }
}

TEST(SelectiveScanThreads, GiveTheSameBits) {
  // Several groups of channels, one of them short, and three sequences.
  const Problem p = make_problem({3, 70, 2 * kScanGroup + 17, 6}, {0, 30});
  const ScanRun one = run(p, 1);
  for (const int threads : {1, 2, 3}) {
    const ScanRun r = run(p, threads);
    const std::string what = fmt::format("{} threads", threads);
    expect_same_bits(r.exact_results(), one.exact_results(), what);
    expect_same_bits(r.parameter_results(), one.parameter_results(), what);
  }
}

TEST(SelectiveScanThreads, AllocateNothingOnceWarm) {
  const Problem p = make_problem({1, 70, 40, 16});
  test::Scan scan(p.dims, p.in);
  Stream stream = test::make_stream(2);
  Arena scratch(test::device());
  const test::GuardedTensor dout(DType::f32, {1, 70, 40}, p.dout);
  const test::GuardedTensor out(DType::f32, {1, 70, 40});
  std::int64_t warm = 0;
  for (int i = 0; i < 3; ++i) {
    selective_scan_forward(stream, scratch, out.tensor(), {}, scan.saved(), scan.inputs());
    selective_scan_backward(stream, scratch, scan.gradients(), out.tensor(), dout.tensor(), {},
                            scan.saved(), scan.inputs());
    scratch.reset();
    if (i == 0) warm = scratch.num_allocations();
  }
  EXPECT_EQ(scratch.num_allocations(), warm);
}

}  // namespace
}  // namespace jamba
