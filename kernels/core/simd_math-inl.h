// Vector exp2, exp, sigmoid, silu and softplus in float32. Included once per target.

#if defined(JAMBA_KERNELS_CORE_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_CORE_SIMD_MATH_INL_H_
#undef JAMBA_KERNELS_CORE_SIMD_MATH_INL_H_
#else
#define JAMBA_KERNELS_CORE_SIMD_MATH_INL_H_
#endif

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

/// 2^r on [-0.5, 0.5]. Minimax of degree 5 constrained to p(0) = 1: an unconstrained fit is off by
/// 2 ulp near 0, and a scan with exp2(tiny) as its decay compounds that bias over its memory.
HWY_INLINE VF exp2_polynomial(VF r) {
  const DF d;
  VF p = hn::Set(d, 1.3264727127e-03f);
  p = hn::MulAdd(p, r, hn::Set(d, 9.6715126448e-03f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.5507337435e-02f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.4022242085e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.9314697760e-01f));
  return hn::MulAdd(p, r, hn::Set(d, 1.0f));
}

/// p * 2^n for integral n in [-126, 127] held as float; p in [0.7, 1.5]. NaN stays NaN: the power
/// multiplies, since added to the exponent's bits it would turn some NaNs into numbers.
HWY_INLINE VF scale_by_power(VF p, VF n) {
  // 1.5 * 2^23 + 127 brings the biased exponent into the lowest bits.
  const VF biased = hn::Add(n, hn::Set(DF(), 12583039.0f));
  return hn::Mul(p, hn::BitCast(DF(), hn::ShiftLeft<23>(hn::BitCast(DI32(), biased))));
}

/// 2^x for x <= 127; below -126 the result stays 2^-126. NaN passes through.
/// Error: at most 3 units of 2^-24.
HWY_INLINE VF exp2_clamped(VF x) {
  const DF d;
  const DI32 di;
  const VF clamped = hn::Max(hn::Set(d, -126.0f), x);  // NaN: the second operand survives
  const VF magic = hn::Set(d, 12582912.0f);
  const VF t = hn::Add(clamped, magic);
  const VF r = hn::Sub(clamped, hn::Sub(t, magic));
  const VF p = exp2_polynomial(r);
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, t))));
}

/// e^x; 0 below -87.3, saturating near 1.7e38 above 88. NaN passes through.
HWY_INLINE VF exp(VF x) {
  const DF d;
  const VF lowest = hn::Set(d, -87.3f);
  const VF clamped = hn::Min(hn::Set(d, 88.0f), hn::Max(lowest, x));
  const VF n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.442695041f)));
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693145752f), clamped);  // ln 2 in two parts
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6f), r);
  const VF y = scale_by_power(exp2_polynomial(hn::Mul(r, hn::Set(d, 1.442695041f))), n);
  return hn::IfThenZeroElse(hn::Lt(x, lowest), y);
}

HWY_INLINE VF sigmoid(VF x) {
  const VF one = hn::Set(DF(), 1.0f);
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

HWY_INLINE VF silu(VF x) { return hn::Mul(x, sigmoid(x)); }

/// d silu(x) / dx, given s = sigmoid(x).
HWY_INLINE VF silu_derivative(VF x, VF s) {
  const VF one = hn::Set(DF(), 1.0f);
  return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
}

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), accurate in relative terms for any x, and its
/// derivative sigmoid(x), which shares the exponential.
struct SoftplusResult {
  VF value;
  VF derivative;
};
HWY_INLINE SoftplusResult softplus(VF x) {
  const DF d;
  const VF one = hn::Set(d, 1.0f);
  const VF e = exp(hn::Neg(hn::Abs(x)));
  // log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3: the odd series needs 8 terms for float32.
  const VF s = hn::Div(e, hn::Add(hn::Set(d, 2.0f), e));
  const VF s2 = hn::Mul(s, s);
  VF p = hn::Set(d, 2.0f / 15.0f);
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 13.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 11.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 9.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 7.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 5.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f / 3.0f));
  p = hn::MulAdd(p, s2, hn::Set(d, 2.0f));
  const VF value = hn::MulAdd(p, s, hn::Max(x, hn::Zero(d)));
  const VF inverse = hn::Div(one, hn::Add(one, e));
  const VF derivative = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Mul(e, inverse), inverse);
  return {value, derivative};
}

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
