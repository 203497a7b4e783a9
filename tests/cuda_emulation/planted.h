#pragma once
// Programs with a bug each, and some without.

#include <string>
#include <vector>

namespace cuda_emulation::test {

struct Planted {
  std::string name;
  void (*run)();
  std::string words;  // of the message that ends the program, as a regular expression
  bool checked_only;  // seen by the checks of accesses alone
};
std::vector<Planted> bugs();

/// Computes something by correct kernels and compares it with the host; returns what went wrong.
std::string run_correct_kernels();
/// Two streams that need an event between them: the sum that comes out without (or with) it.
int sum_over_streams(bool waits);

}  // namespace cuda_emulation::test
