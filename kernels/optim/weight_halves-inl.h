// The two halves of a float32 weight as vectors. Included once per target.

#if defined(JAMBA_KERNELS_OPTIM_WEIGHT_HALVES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef JAMBA_KERNELS_OPTIM_WEIGHT_HALVES_INL_H_
#undef JAMBA_KERNELS_OPTIM_WEIGHT_HALVES_INL_H_
#else
#define JAMBA_KERNELS_OPTIM_WEIGHT_HALVES_INL_H_
#endif

#include "kernels/core/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace jamba {
namespace HWY_NAMESPACE {

HWY_INLINE hn::Vec<DU32> load_half(const std::uint16_t* p, std::int64_t count) {
  if (count == lanes()) return hn::PromoteTo(DU32(), hn::LoadU(DU16(), p));
  HWY_ALIGN std::uint16_t full[HWY_MAX_BYTES / 4] = {};
  for (std::int64_t i = 0; i < count; ++i) full[i] = p[i];
  return hn::PromoteTo(DU32(), hn::LoadU(DU16(), full));
}

HWY_INLINE void store_half(hn::Vec<DU32> v, std::uint16_t* p, std::int64_t count) {
  const auto half = hn::DemoteTo(DU16(), hn::BitCast(DI32(), v));
  if (count == lanes()) {
    hn::StoreU(half, DU16(), p);
    return;
  }
  HWY_ALIGN std::uint16_t full[HWY_MAX_BYTES / 4];
  hn::StoreU(half, DU16(), full);
  for (std::int64_t i = 0; i < count; ++i) p[i] = full[i];
}

/// bits = value * 2^16 + rest, rest read as signed.
HWY_INLINE VF join_halves(const bfloat16* value, const std::uint16_t* rest, std::int64_t count) {
  const DU32 du;
  const DI32 di;
  const auto high = load_half(reinterpret_cast<const std::uint16_t*>(value), count);
  const auto low = hn::ShiftLeft<16>(load_half(rest, count));
  const auto signed_low = hn::BitCast(du, hn::ShiftRight<16>(hn::BitCast(di, low)));
  return hn::BitCast(DF(), hn::Add(hn::ShiftLeft<16>(high), signed_low));
}

HWY_INLINE void split_halves(VF weight, bfloat16* value, std::uint16_t* rest, std::int64_t count) {
  const DU32 du;
  const auto bits = hn::BitCast(du, weight);
  const auto high = hn::ShiftRight<16>(hn::Add(bits, hn::Set(du, 0x8000)));
  store_half(high, reinterpret_cast<std::uint16_t*>(value), count);
  store_half(hn::And(bits, hn::Set(du, 0xffff)), rest, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace jamba
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
