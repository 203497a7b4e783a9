#pragma once
// The part of cuDNN's C interface that this project uses, for programs in which its CUDA backend
// runs on the CPU.

#include <cuda_runtime.h>

#include <cstddef>

struct cudnnContext;
using cudnnHandle_t = cudnnContext*;
enum cudnnStatus_t { CUDNN_STATUS_SUCCESS = 0, CUDNN_STATUS_NOT_INITIALIZED = 1001 };

const char* cudnnGetErrorString(cudnnStatus_t);
std::size_t cudnnGetVersion();
cudnnStatus_t cudnnCreate(cudnnHandle_t*);
cudnnStatus_t cudnnDestroy(cudnnHandle_t);
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t);
