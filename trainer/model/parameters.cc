#include "trainer/model/parameters.h"

#include <algorithm>
#include <map>

#include "kernels/pointwise/pointwise.h"

namespace jamba {

namespace {

/// Units of a part, by what they hold. Pools take turns among layers; the embedding and the head
/// are larger and have their own.
enum class UnitKind { small, matrices, experts };
constexpr int kNumUnitKinds = 3;

UnitKind kind_of(const ParameterSpec& spec) {
  return spec.expert ? UnitKind::experts : spec.keep_float32 ? UnitKind::small : UnitKind::matrices;
}

std::int64_t align(std::int64_t elements) {
  return (elements + kUnitBlock - 1) / kUnitBlock * kUnitBlock;
}

TensorShard shard_of(const ParameterSpec& spec, const Mesh& mesh) {
  TensorShard shard = cut(spec.shape, spec.tp.dim, spec.tp.unit, mesh.shape().tp, mesh.at().tp);
  if (spec.expert) {
    const TensorShard experts = cut(spec.shape, 0, 1, mesh.shape().ep, mesh.at().ep);
    shard.offset[0] = experts.offset[0];
    shard.extents[0] = experts.extents[0];
  }
  return shard;
}

std::vector<bool> held_parts(const ModelConfig& c, const std::vector<Chunk>& chunks) {
  std::vector<bool> held(static_cast<std::size_t>(num_parts(c)));
  const auto hold = [&](std::int64_t part) { held[static_cast<std::size_t>(part)] = true; };
  for (const Chunk& chunk : chunks) {
    if (chunk.embedding) hold(kEmbeddingPart);
    if (chunk.head) hold(head_part(c));
    for (std::int64_t layer = chunk.begin; layer < chunk.end; ++layer) hold(layer_part(layer));
  }
  return held;
}

/// The specs of the parts that this rank runs. A head that is tied to an embedding on another stage
/// has a copy of it.
std::vector<ParameterSpec> held_specs(const ModelConfig& c, const std::vector<bool>& held) {
  std::vector<ParameterSpec> out;
  const bool head = held.back(), embedding = held.front();
  for (ParameterSpec& spec : parameter_specs(c)) {
    const bool shared = c.tie_word_embeddings && spec.part == kEmbeddingPart && head != embedding;
    if (shared && head) {
      spec.part = head_part(c);
    } else if (!held[static_cast<std::size_t>(spec.part)]) {
      continue;
    } else if (shared) {
      spec.gradient_overwritten = false;  // the head is not here to do it
    }
    out.push_back(std::move(spec));
  }
  return out;
}

}  // namespace

struct Parameters::Plan {
  std::vector<Entry> entries;
  std::vector<Unit> units;
  std::vector<std::vector<int>> units_of_part;
  std::vector<UnitSpec> specs;
  int tied_unit = -1;
};

Parameters::Plan Parameters::make_plan(const ModelConfig& c, const Mesh& mesh,
                                       const std::vector<Chunk>& chunks,
                                       const ParameterOptions& options) {
  const std::vector<bool> held = held_parts(c, chunks);
  Plan plan;
  plan.units_of_part.resize(held.size());
  std::map<std::pair<std::int64_t, UnitKind>, int> unit_index;
  // Norms come first in their unit, so that their gradients are summed over neighbours as one.
  std::vector<ParameterSpec> specs = held_specs(c, held);
  std::stable_sort(specs.begin(), specs.end(), [](const auto& a, const auto& b) {
    return std::pair(a.part, !a.sees_own_tokens) < std::pair(b.part, !b.sees_own_tokens);
  });
  for (ParameterSpec& spec : specs) {
    const UnitKind kind = kind_of(spec);
    const auto [it, added] =
        unit_index.try_emplace({spec.part, kind}, static_cast<int>(plan.units.size()));
    if (added) {
      const bool is_layer = spec.part != kEmbeddingPart && spec.part != head_part(c);
      UnitSpec unit;
      unit.dtype = kind == UnitKind::small ? DType::f32 : options.compute_dtype;
      unit.group = kind == UnitKind::experts ? &mesh.expert_data() : &mesh.data();
      unit.pool = static_cast<int>(kind) + (is_layer ? 0 : kNumUnitKinds);
      unit.deep = is_layer;
      plan.specs.push_back(unit);
      plan.units.push_back({{}, spec.part, spec.part});
      plan.units_of_part[static_cast<std::size_t>(spec.part)].push_back(it->second);
    }
    if (c.tie_word_embeddings && spec.name == "model.embed_tokens.weight") {
      plan.tied_unit = it->second;
    }
    Entry& entry = plan.entries.emplace_back();
    entry.shard = shard_of(spec, mesh);
    entry.unit = it->second;
    entry.begin = plan.specs[static_cast<std::size_t>(it->second)].elements;
    const bool second_copy =
        spec.part == head_part(c) && it->second == plan.tied_unit && !held.front();
    entry.counted = entry.shard.copy == 0 && !second_copy;
    entry.spec = std::move(spec);
    plan.specs[static_cast<std::size_t>(it->second)].elements += align(entry.shard.numel());
    plan.units[static_cast<std::size_t>(it->second)].entries.push_back(plan.entries.size() - 1);
  }
  if (plan.tied_unit >= 0 && held.front() && held.back()) {  // one matrix, used at both ends
    plan.units[static_cast<std::size_t>(plan.tied_unit)].first_part = head_part(c);
    plan.specs[static_cast<std::size_t>(plan.tied_unit)].keeps_gradient = true;
    plan.units_of_part.back().push_back(plan.tied_unit);
  }
  return plan;
}

Parameters::Parameters(Stream& stream, const ModelConfig& config, const Mesh& mesh,
                       const std::vector<Chunk>& chunks, const ParameterOptions& options)
    : Parameters(stream, mesh, options, make_plan(config, mesh, chunks, options)) {}

Parameters::Parameters(Stream& stream, const ModelConfig& config, const Mesh& mesh,
                       const ParameterOptions& options)
    : Parameters(stream, config, mesh, {{0, config.num_hidden_layers, true, true}}, options) {}

Parameters::Parameters(Stream& stream, const Mesh& mesh, const ParameterOptions& options, Plan plan)
    : stream_(stream),
      mesh_(mesh),
      options_(options),
      entries_(std::move(plan.entries)),
      units_(std::move(plan.units)),
      units_of_part_(std::move(plan.units_of_part)),
      tied_unit_(plan.tied_unit),
      store_(stream, std::move(plan.specs), options.zero) {
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].spec.name, i);
  for (int u = 0; u < store_.num_units(); ++u) {
    if (options.zero.stage != ZeroStage::parameters) bind_values(u);
    NeighbourSum own_tokens{u, 0, 0, &mesh.tp()}, shared_heads{u, 0, 0, &mesh.kv()};
    for (const std::size_t i : units_[static_cast<std::size_t>(u)].entries) {
      const Entry& e = entries_[i];
      const auto include = [&](NeighbourSum& sum) {
        if (sum.count == 0) sum.begin = e.begin;
        sum.count = e.begin + e.numel() - sum.begin;
      };
      if (options.sequence_parallel && e.spec.sees_own_tokens) include(own_tokens);
      if (e.spec.tp.dim >= 0 && e.shard.copies > 1) include(shared_heads);
    }
    for (const NeighbourSum& sum : {own_tokens, shared_heads}) {
      if (sum.count > 0 && sum.group->size() > 1) neighbour_sums_.push_back(sum);
    }
  }
}

const Parameters::Entry& Parameters::entry(const std::string& name) const {
  const auto it = index_.find(name);
  JAMBA_CHECK(it != index_.end(), "no parameter '{}'", name);
  return entries_[it->second];
}

const Weight* Parameters::weight(const std::string& name) const {
  static const Weight absent;
  const auto it = index_.find(name);
  return it == index_.end() ? &absent : &entries_[it->second].weight;
}

void Parameters::bind_values(int unit) {
  const Tensor all = store_.value(unit);
  for (const std::size_t i : units_[static_cast<std::size_t>(unit)].entries) {
    Entry& e = entries_[i];
    e.weight.value = Tensor(all.slice(e.begin, e.numel()).raw(), all.dtype(),
                            std::span<const std::int64_t>(e.shard.extents), all.device());
  }
}

void Parameters::bind_gradients(int unit) {
  const Tensor all = store_.begin_gradient(unit);
  const bool afresh = store_.starts_afresh(unit, micro_);
  for (const std::size_t i : units_[static_cast<std::size_t>(unit)].entries) {
    Entry& e = entries_[i];
    e.weight.grad = Tensor(all.slice(e.begin, e.numel()).raw(), DType::f32,
                           std::span<const std::int64_t>(e.shard.extents), all.device());
    const bool overwrite = afresh && e.spec.gradient_overwritten;
    e.weight.write = overwrite ? Write::overwrite : Write::accumulate;
    if (afresh && !overwrite) zero(stream_, e.weight.grad);
  }
}

void Parameters::before(Pass pass, std::int64_t part) {
  for (const int unit : units_of_part_[static_cast<std::size_t>(part)]) {
    store_.fetch(unit);
    bind_values(unit);
    if (pass == Pass::forward || !training()) continue;
    if (units_[static_cast<std::size_t>(unit)].first_part == part) bind_gradients(unit);
  }
  const std::int64_t next = pass == Pass::forward ? part + 1 : part - 1;
  if (next < 0 || next >= static_cast<std::int64_t>(units_of_part_.size())) return;
  for (const int unit : units_of_part_[static_cast<std::size_t>(next)]) store_.prefetch(unit);
}

void Parameters::after(Pass pass, std::int64_t part) {
  for (const int unit : units_of_part_[static_cast<std::size_t>(part)]) {
    store_.release(unit);
    if (pass == Pass::forward || units_[static_cast<std::size_t>(unit)].last_part != part) continue;
    if (store_.reduces_now(unit, micro_)) {
      for (const NeighbourSum& sum : neighbour_sums_) {
        if (sum.unit != unit) continue;
        sum.group->all_reduce(stream_, store_.full_gradient(unit).slice(sum.begin, sum.count));
      }
    }
    store_.end_gradient(unit, micro_);
  }
  mesh_.world().progress();
}

void Parameters::finish_gradients() {
  store_.finish_gradients();
  if (tied_unit_ < 0 || mesh_.shape().pp == 1) return;
  mesh_.ends().all_reduce(stream_, store_.owned_gradient(tied_unit_));
}

Parameters::Stretch Parameters::stretch(const Entry& e, ZeroStore::Range range) const {
  const std::int64_t begin = std::max(e.begin, range.begin);
  const std::int64_t end = std::min(e.begin + e.numel(), range.end());
  if (end <= begin) return {};
  return {begin - e.begin, end - begin, begin - store_.owned(e.unit).begin};
}

Parameters::Stretch Parameters::owned(const Entry& e) const {
  return stretch(e, store_.owned(e.unit));
}

Parameters::Stretch Parameters::share(const Entry& e) const {
  return stretch(e, store_.share(e.unit));
}

Tensor Parameters::gradient(const Entry& e, const Stretch& stretch) const {
  return store_.owned_gradient(e.unit).slice(stretch.offset, stretch.count);
}

void Parameters::add_gradient_squares(Arena& scratch, ExactSum& sum) const {
  const ArenaScope scope(scratch);
  const Tensor words = scratch.allocate(DType::i64, {std::int64_t{ExactSum::kNumWords}});
  zero(stream_, words);
  for (const Entry& e : entries_) {
    const Stretch mine = share(e);
    if (e.counted && mine.count > 0) add_squares(stream_, scratch, words, gradient(e, mine));
  }
  add_words(stream_, sum, words);
}

void Parameters::publish() {
  for (int unit = 0; unit < store_.num_units(); ++unit) store_.publish(unit);
}

}  // namespace jamba
