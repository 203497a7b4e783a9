// main() of GoogleTest programs that run under mpirun.

#include "tests/support/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace jamba::test {

namespace {

MpiSession* session = nullptr;

/// A rank whose test failed may have left collectives that the others wait in, so it ends them all.
class AbortOnFailure : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d of %d: %s:%d: %s\n", session->world().rank(),
                 session->world().size(), result.file_name() ? result.file_name() : "?",
                 result.line_number(), result.message());
  }
  void OnTestEnd(const ::testing::TestInfo& test) override {
    if (test.result()->Failed()) session->abort(1);
  }
};

}  // namespace

MpiSession& mpi_session() { return *session; }

}  // namespace jamba::test

int main(int argc, char** argv) {
  jamba::MpiSession session(argc, argv);
  jamba::test::session = &session;
  ::testing::InitGoogleTest(&argc, argv);
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (session.world().rank() != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new jamba::test::AbortOnFailure);
  return RUN_ALL_TESTS();
}
