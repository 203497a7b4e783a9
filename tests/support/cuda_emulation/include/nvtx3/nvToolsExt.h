#pragma once
// NVTX's ranges, which cuda_emulation::ranges() shows to tests.

int nvtxRangePushA(const char* name);
int nvtxRangePop();
