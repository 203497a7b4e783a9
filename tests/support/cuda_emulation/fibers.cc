#include "tests/support/cuda_emulation/fibers.h"

#include <sys/mman.h>

#include <cstdint>

#include "tests/support/cuda_emulation/emulation.h"

#ifndef __x86_64__
#error "the CUDA emulation switches stacks on x86-64 only"
#endif

// What the System V ABI asks a called function to keep: six registers and the stack pointer. The
// state of the floating-point unit is the same for all fibers. About 25 ns; swapcontext takes 400,
// most of them for a system call that keeps signal masks.
extern "C" void cuda_emulation_switch(void** from, void* to);
asm(R"(
.text
.globl cuda_emulation_switch
.type cuda_emulation_switch,@function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulation_switch,.-cuda_emulation_switch
)");

namespace cuda_emulation {

void Fiber::start(void (*entry)()) {
  constexpr std::size_t kPage = 4096;
  if (stack_ == nullptr) {
    void* const memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stack of a CUDA thread");
    mprotect(memory, kPage, PROT_NONE);  // below it: overflow faults
    stack_ = static_cast<char*>(memory) + kPage;
  }
  constexpr int kSavedRegisters = 6;
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // where entry would return to; also aligns the stack as a call does
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  saved = top;
}

void switch_fibers(Fiber& from, Fiber& to) { cuda_emulation_switch(&from.saved, to.saved); }

}  // namespace cuda_emulation
