// Vector loads and stores that convert between storage and float32. Included once per target
// (Highway's foreach_target.h); see kernels/norm/rms_norm_cpu.cc for the pattern.

#if defined(JAMBA_KERNELS_CORE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_CORE_SIMD_INL_H_
#undef JAMBA_KERNELS_CORE_SIMD_INL_H_
#else
#define JAMBA_KERNELS_CORE_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Descriptor of the widest float32 vector of this target.
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DU16 = hn::Rebind<std::uint16_t, DF>;
using DU32 = hn::Rebind<std::uint32_t, DF>;
using DI32 = hn::Rebind<std::int32_t, DF>;

HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(DF())); }

HWY_INLINE VF load(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE void store(VF v, float* p) { hn::StoreU(v, DF(), p); }

HWY_INLINE VF load(const bfloat16* p) {
  const auto half = hn::LoadU(DU16(), reinterpret_cast<const std::uint16_t*>(p));
  return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(DU32(), half)));
}

/// Rounds to nearest even; NaN stays NaN.
HWY_INLINE void store(VF v, bfloat16* p) {
  const DI32 di;
  const auto raw = hn::BitCast(di, v);
  const auto upper = hn::ShiftRight<16>(raw);
  const auto odd = hn::And(upper, hn::Set(di, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(raw, hn::Add(odd, hn::Set(di, 0x7fff))));
  const auto quiet_nan = hn::Or(upper, hn::Set(di, 0x40));
  const auto is_nan = hn::RebindMask(di, hn::IsNaN(v));
  const auto bits = hn::And(hn::IfThenElse(is_nan, quiet_nan, rounded), hn::Set(di, 0xffff));
  hn::StoreU(hn::DemoteTo(DU16(), bits), DU16(), reinterpret_cast<std::uint16_t*>(p));
}

/// The first `count` elements, zero above; count in [0, lanes()].
template <class T>
HWY_INLINE VF load_tail(const T* p, std::int64_t count) {
  HWY_ALIGN T full[HWY_MAX_BYTES / 4] = {};
  for (std::int64_t i = 0; i < count; ++i) full[i] = p[i];
  return load(full);
}

template <class T>
HWY_INLINE void store_tail(VF v, T* p, std::int64_t count) {
  HWY_ALIGN T full[HWY_MAX_BYTES / 4];
  store(v, full);
  for (std::int64_t i = 0; i < count; ++i) p[i] = full[i];
}

/// Calls body(i, count) over [0, n) in steps of lanes(); count < lanes() only in the last call.
/// Bodies use load_n/store_n, which take the tail path only there.
template <class Body>
HWY_INLINE void for_lanes(std::int64_t n, Body&& body) {
  const std::int64_t step = lanes();
  std::int64_t i = 0;
  for (; i + step <= n; i += step) body(i, step);
  if (i < n) body(i, n - i);
}
template <class T>
HWY_INLINE VF load_n(const T* p, std::int64_t count) {
  return count == lanes() ? load(p) : load_tail(p, count);
}
template <class T>
HWY_INLINE void store_n(VF v, T* p, std::int64_t count) {
  if (count == lanes()) {
    store(v, p);
  } else {
    store_tail(v, p, count);
  }
}

HWY_INLINE float sum_lanes(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }
HWY_INLINE float max_lanes(VF v) { return hn::GetLane(hn::MaxOfLanes(DF(), v)); }

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
