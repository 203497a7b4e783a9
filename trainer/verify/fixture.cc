#include "trainer/verify/fixture.h"

#include <algorithm>
#include <fstream>

#include "kernels/core/host_view.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/hf_names.h"
#include "trainer/model/masters.h"

namespace jamba {

namespace {

nlohmann::json read_json(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw NoInputError(fmt::format("{}: no such file", path));
  try {
    return nlohmann::json::parse(in);
  } catch (const nlohmann::json::exception& e) {
    throw DataError(fmt::format("{}: not JSON: {}", path, e.what()));
  }
}

constexpr char kMixerPrefix[] = "model.layers.0.";

FixtureKind kind_of(const SafetensorsFile& inputs, const nlohmann::json& meta) {
  if (inputs.find("dy") != nullptr) return FixtureKind::mixer;
  return meta.contains("optimiser") ? FixtureKind::trajectory : FixtureKind::model;
}

ModelConfig fixture_config(const std::string& path) {
  ModelConfig config = read_hf_config(path);
  config.aux_loss_scope = AuxLossScope::microbatch;  // as the reference computes it
  return config;
}

}  // namespace

std::string fixture_name(FixtureKind kind, const std::string& hf_name) {
  if (kind != FixtureKind::mixer) return hf_name;
  return hf_name.starts_with(kMixerPrefix) ? hf_name.substr(sizeof(kMixerPrefix) - 1) : "";
}

Fixture::Fixture(const std::string& directory)
    : config_(fixture_config(directory + "/config.json")),
      meta_(read_json(directory + "/meta.json")),
      model_(directory + "/model.safetensors"),
      inputs_(directory + "/inputs.safetensors"),
      expected_(directory + "/expected.safetensors"),
      kind_(kind_of(inputs_, meta_)) {
  refuse_padding();
}

void Fixture::refuse_padding() const {
  const SafetensorsEntry* mask = inputs_.find("attention_mask");
  if (mask == nullptr) return;
  const Buffer buffer(mask->numel() * dtype_bytes(DType::i64));
  const Tensor values = buffer.tensor(DType::i64, {mask->numel()});
  inputs_.read(*mask, values);
  for (std::int64_t i = 0; i < mask->numel(); ++i) {
    if (values.ptr<std::int64_t>()[i] == 1) continue;
    throw UnsupportedError(
        fmt::format("{}: attention_mask has zeros. Padding inside a batch is not supported: "
                    "training packs documents instead, and generation runs without padding",
                    inputs_.path()));
  }
}

void Fixture::read_parameter(const std::string& param, const Tensor& out) const {
  for (const HfTensor& hf : hf_tensors(config_)) {
    if (hf.param != param) continue;
    const std::string name = fixture_name(kind_, hf.name);
    const SafetensorsEntry* entry = model_.find(name);
    if (entry == nullptr) {
      if (kind_ == FixtureKind::mixer) continue;  // holds one mixer's tensors only
      throw DataError(fmt::format("{}: no tensor '{}'", model_.path(), name));
    }
    if (entry->shape != hf.shape) {
      throw DataError(fmt::format("{}: '{}' has shape [{}], the config asks for [{}]",
                                  model_.path(), name, fmt::join(entry->shape, ", "),
                                  fmt::join(hf.shape, ", ")));
    }
    model_.read(*entry, out.slice(hf.begin, hf.count));
  }
}

void Fixture::load_weights(Parameters& parameters) const {
  {
    const Masters masters(parameters, Masters::Access::write);
    for (const Parameters::Entry& entry : parameters.entries()) {
      const Buffer memory(entry.spec.numel() * dtype_bytes(DType::f32));
      const Tensor whole = memory.tensor(DType::f32, {entry.spec.numel()});
      read_parameter(entry.spec.name, whole);
      const Parameters::Stretch mine = parameters.owned(entry);
      if (mine.count == 0) continue;
      const HostView to(parameters.stream(), masters.of(entry, mine), HostAccess::write);
      for_each_run(entry.spec.shape, entry.shard,
                   [&](std::int64_t local, std::int64_t global, std::int64_t count) {
                     const std::int64_t first = std::max(local, mine.begin);
                     const std::int64_t last = std::min(local + count, mine.begin + mine.count);
                     if (first >= last) return;
                     std::copy_n(whole.ptr<float>() + global + (first - local), last - first,
                                 to.ptr<float>() + (first - mine.begin));
                   });
      to.store();
    }
  }
  parameters.publish();
}

std::vector<std::int64_t> Fixture::input_shape(const std::string& name) const {
  const SafetensorsEntry* entry = inputs_.find(name);
  if (entry == nullptr) throw DataError(fmt::format("{}: no tensor '{}'", inputs_.path(), name));
  return entry->shape;
}

void Fixture::read_tokens(const std::string& name, std::int64_t begin, const Tensor& out) const {
  input_shape(name);
  const SafetensorsEntry& entry = *inputs_.find(name);
  const Buffer buffer(entry.numel() * dtype_bytes(DType::i64));
  const Tensor wide = buffer.tensor(DType::i64, {entry.numel()});
  inputs_.read(entry, wide);
  JAMBA_CHECK(begin + out.numel() <= entry.numel(), "{} holds {} tokens", name, entry.numel());
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    out.ptr<std::int32_t>()[i] = static_cast<std::int32_t>(wide.ptr<std::int64_t>()[begin + i]);
  }
}

}  // namespace jamba
