#pragma once
#include "kernels/core/memory.h"
#include "kernels/core/stream.h"

namespace jamba {

/// Numbers of one AdamW update. bias corrections are 1 - beta^step with step counted from 1.
struct AdamWStep {
  float lr = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0;
  float bias_correction1 = 1;
  float bias_correction2 = 1;
  float grad_scale = 1;  // clipping factor; multiplies the gradient first
};

/// Decoupled weight decay and Adam, as torch.optim.AdamW:
///   w -= lr * weight_decay * w;  m, v <- moments of grad_scale * g;
///   w -= lr * (m / bc1) / (sqrt(v / bc2) + eps).
/// Shapes: weight, m, v, grad [n]; compute [n] or absent: a bfloat16 copy of the new weight.
/// Dtypes: weight, m, v, grad float32; compute bfloat16.
/// Determinism: element-wise.   Source: arXiv:1711.05101.
void adamw(Stream&, Tensor weight, Tensor m, Tensor v, Tensor grad, Tensor compute,
           const AdamWStep&);

}  // namespace jamba
