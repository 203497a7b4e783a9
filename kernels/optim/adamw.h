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
/// Shapes: weight, rest, m, v, grad [n].
/// Dtypes: m, v, grad float32; weight float32 without rest, or the halves of a float32 weight
///         (weight_halves.h). Arithmetic in float32: halves end with the bits that float32 gets.
/// Determinism: element-wise.   Source: arXiv:1711.05101.
void adamw(Stream&, Tensor weight, Tensor rest, Tensor m, Tensor v, Tensor grad, const AdamWStep&);

}  // namespace jamba
