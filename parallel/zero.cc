#include "parallel/zero.h"

#include <algorithm>
#include <bit>

#include "kernels/core/errors.h"
#include "parallel/zero_unit.h"

namespace jamba {

namespace {

std::int64_t floats(std::int64_t count) { return count * dtype_bytes(DType::f32); }

}  // namespace

ZeroStore::ZeroStore(Stream& stream, std::vector<UnitSpec> specs, const ZeroOptions& options)
    : stream_(stream), options_(options) {
  for (UnitSpec& spec : specs) {
    JAMBA_CHECK(spec.elements % kUnitBlock == 0, "{} elements", spec.elements);
    auto unit = std::make_unique<Unit>();
    const std::int64_t ranks = spec.group->size(), whole = ranks * kUnitBlock;
    unit->spec = spec;
    unit->stage = ranks == 1 ? ZeroStage::none : options.stage;
    unit->size = (spec.elements + whole - 1) / whole * whole;
    unit->share = {spec.group->rank() * (unit->size / ranks), unit->size / ranks};
    unit->owned = unit->stage == ZeroStage::none ? Range{0, unit->size} : unit->share;
    allocate(*unit);
    units_.push_back(std::move(unit));
  }
  make_pools(
      value_pools_, [](const Unit& u) { return u.shards_values(); }, false);
  if (!options_.training) return;
  make_pools(
      gradient_pools_, [](const Unit& u) { return u.pools_gradient(); }, true);
}

ZeroStore::~ZeroStore() = default;

void ZeroStore::allocate(Unit& u) {
  const DType values = u.joinable() ? DType::f32 : u.spec.dtype;
  u.values = Buffer(u.held() * dtype_bytes(values), stream_.device());
  if (u.spec.dtype == DType::bf16 && !u.joinable()) {
    u.rests = Buffer(u.owned.count * dtype_bytes(DType::u16), stream_.device());
  }
  if (!options_.training) return;
  if (!u.pools_gradient()) u.gradients = Buffer(floats(u.size), stream_.device());
  if (!reduces_each_micro(u)) return;
  const bool tree = options_.accumulation == Accumulation::tree;
  JAMBA_CHECK(!tree || std::has_single_bit(static_cast<std::uint64_t>(options_.num_micro)),
              "a tree over {} microbatches", options_.num_micro);
  const int levels = tree ? std::countr_zero(static_cast<std::uint64_t>(options_.num_micro)) : 1;
  for (int level = 0; level < std::max(levels, 1); ++level) {
    u.sums.emplace_back(floats(u.share.count), stream_.device());
  }
}

void ZeroStore::make_pools(std::vector<Pool>& pools, bool (*uses_pool)(const Unit&),
                           bool gradients) {
  struct Need {
    std::int64_t bytes = 0;
    bool deep = false;
  };
  std::vector<Need> needs;
  for (const auto& unit : units_) {
    if (!uses_pool(*unit)) continue;
    const auto pool = static_cast<std::size_t>(unit->spec.pool);
    needs.resize(std::max(needs.size(), pool + 1));
    const std::int64_t element = dtype_bytes(gradients ? DType::f32 : unit->spec.dtype);
    needs[pool].bytes = std::max(needs[pool].bytes, unit->size * element);
    needs[pool].deep = needs[pool].deep || unit->spec.deep;
  }
  for (const Need& need : needs) {
    Pool& pool = pools.emplace_back(need.bytes == 0 ? 0 : need.deep ? 2 : 1);
    for (Slot& slot : pool) slot.memory = Buffer(need.bytes, stream_.device());
  }
}

std::int64_t ZeroStore::size(int unit) const { return at(unit).size; }
ZeroStore::Range ZeroStore::share(int unit) const { return at(unit).share; }
ZeroStore::Range ZeroStore::owned(int unit) const { return at(unit).owned; }

namespace {

std::int64_t bytes_of(const auto& pools) {
  std::int64_t bytes = 0;
  for (const auto& pool : pools) {
    for (const auto& slot : pool) bytes += slot.memory.bytes();
  }
  return bytes;
}

}  // namespace

std::int64_t ZeroStore::value_bytes() const {
  std::int64_t bytes = bytes_of(value_pools_);
  for (const auto& u : units_) bytes += u->values.bytes() + u->rests.bytes();
  return bytes;
}

std::int64_t ZeroStore::gradient_bytes() const {
  std::int64_t bytes = bytes_of(gradient_pools_);
  for (const auto& u : units_) {
    bytes += u->gradients.bytes();
    for (const Buffer& sum : u->sums) bytes += sum.bytes();
  }
  return bytes;
}

}  // namespace jamba
