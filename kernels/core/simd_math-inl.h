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

/// 1.5 * 2^23: adding it rounds a float32 of magnitude below 2^22 to an integer, which then stands
/// in the low bits of the sum.
inline constexpr float kRoundToInteger = 12582912.0f;

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

/// 2^n, where t = n + 127 + kRoundToInteger and n in [-126, 127].
HWY_INLINE VF power_of_two(VF t) {
  return hn::BitCast(DF(), hn::ShiftLeft<23>(hn::BitCast(DI32(), t)));
}

/// 2^x for x <= 127; below -126 the result stays 2^-126. NaN passes through.
/// Error: at most 3 units of 2^-24.
HWY_INLINE VF exp2_clamped(VF x) {
  const DF d;
  const VF clamped = hn::Max(hn::Set(d, -126.0f), x);  // NaN: the second operand survives
  const VF magic = hn::Set(d, kRoundToInteger + 127.0f);
  const VF t = hn::Add(clamped, magic);
  const VF r = hn::Sub(clamped, hn::Sub(t, magic));
  return hn::Mul(exp2_polynomial(r), power_of_two(t));
}

/// Whether a caller can rule out results below the normal range.
enum class Underflow { impossible, to_zero };

/// 2^(x y) for x y <= 0, with x y rounded only once. Below 2^-126 the result is 0;
/// Underflow::impossible leaves out that test: it must only see x y >= -126, and of a NaN it
/// returns any value. Both give the same bits where both may be used.
/// Error: at most 3 units of 2^-24.
template <Underflow kUnderflow>
HWY_INLINE VF exp2_product(VF x, VF y) {
  const DF d;
  const DI32 di;
  const VF magic = hn::Set(d, kRoundToInteger);
  const VF t = hn::MulAdd(x, y, magic);
  const VF p = exp2_polynomial(hn::MulSub(x, y, hn::Sub(t, magic)));
  // Adding to the exponent's bits is cheaper than a product, but destroys a NaN.
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, t));
  const VF result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  if constexpr (kUnderflow == Underflow::impossible) return result;
  const VF xy = hn::Mul(x, y);
  const VF lowest = hn::Set(d, -126.0f);
  const VF zero_or_nan = hn::IfThenZeroElse(hn::Lt(xy, lowest), xy);
  return hn::IfThenElse(hn::Ge(xy, lowest), result, zero_or_nan);
}

/// e^x; 0 below -87.3, saturating near 1.7e38 above 88. NaN passes through.
/// Error: at most 4 units of 2^-24.
HWY_INLINE VF exp(VF x) {
  const DF d;
  const VF lowest = hn::Set(d, -87.3f);
  const VF clamped = hn::Min(hn::Set(d, 88.0f), hn::Max(lowest, x));  // the second operand's NaN
  const VF magic = hn::Set(d, kRoundToInteger + 127.0f);              // 127: the exponent's bias
  const VF t = hn::MulAdd(clamped, hn::Set(d, 1.442695041f), magic);
  const VF n = hn::Sub(t, magic);
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693145752f), clamped);  // ln 2 in two parts
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6f), r);
  VF p = hn::Set(d, 8.2903146715e-03f);
  p = hn::MulAdd(p, r, hn::Set(d, 4.1897929319e-02f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6667636196e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.9999149530e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 9.9999970719e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::Mul(p, power_of_two(t)));
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
  // log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3: a polynomial in s^2, off by 5e-9.
  const VF s = hn::Div(e, hn::Add(hn::Set(d, 2.0f), e));
  const VF s2 = hn::Mul(s, s);
  VF p = hn::Set(d, 2.8011987208e-01f);
  p = hn::MulAdd(p, s2, hn::Set(d, 2.8001805188e-01f));
  p = hn::MulAdd(p, s2, hn::Set(d, 4.0021527245e-01f));
  p = hn::MulAdd(p, s2, hn::Set(d, 6.6666416286e-01f));
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
