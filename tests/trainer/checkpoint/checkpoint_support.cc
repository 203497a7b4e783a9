#include "tests/trainer/checkpoint/checkpoint_support.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include "parallel/comm/thread_group.h"

namespace jamba::test {

TemporaryDirectory::TemporaryDirectory() {
  path_ = (std::filesystem::temp_directory_path() / "jamba_checkpoint_XXXXXX").string();
  if (::mkdtemp(path_.data()) == nullptr) throw CannotCreateError(path_);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ModelConfig small_model() {
  ModelConfig c;
  c.vocab_size = 48;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_hidden_layers = 4;
  c.layer_pattern = "M Me A Me";
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.mamba_d_state = 4;
  c.num_experts = 3;
  c.num_experts_per_tok = 2;
  return c;
}

std::vector<LogicalTensor> logical_tensors() {
  return {{"weight/model.embed_tokens.weight", {37, 12}},
          {"weight/model.layers.0.feed_forward.experts.gate_up_proj", {5, 6, 7}},
          {"weight/model.final_layernorm.weight", {13}},
          {"adam_m/model.embed_tokens.weight", {37, 12}},
          {"adam_v/low", {4, 3, 5, 9}, DType::bf16},
          {"counters/steps", {3}, DType::i64}};
}

namespace {

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Calls f(pointer to the element, number of the element in the logical tensor).
template <class F>
void for_each_element(const StateSlice& slice, F&& f) {
  const auto dims = slice.data.dims();
  const std::int64_t element = dtype_bytes(slice.data.dtype());
  for (std::int64_t i = 0; i < slice.data.numel(); ++i) {
    std::int64_t rest = i, global = 0, stride = 1;
    for (std::size_t d = dims.size(); d-- > 0;) {
      global += (rest % dims[d] + slice.offset[d]) * stride;
      rest /= dims[d];
      stride *= slice.global_shape[d];
    }
    f(static_cast<char*>(slice.data.raw()) + i * element, global);
  }
}

std::uint64_t value_at(std::uint64_t seed, const std::string& name, std::int64_t global) {
  return mix(seed * 1000003 + std::hash<std::string>()(name) + static_cast<std::uint64_t>(global));
}

}  // namespace

State::State(const std::vector<LogicalTensor>& tensors, int dim, std::int64_t parts,
             std::int64_t index) {
  for (const LogicalTensor& tensor : tensors) {
    const std::size_t d = std::min(static_cast<std::size_t>(dim), tensor.shape.size() - 1);
    const std::int64_t size = tensor.shape[d] / parts, rest = tensor.shape[d] % parts;
    std::vector<std::int64_t> extents = tensor.shape;
    extents[d] = size + (index < rest ? 1 : 0);
    std::vector<std::int64_t> offset(tensor.shape.size(), 0);
    offset[d] = index * size + std::min(index, rest);
    std::int64_t bytes = dtype_bytes(tensor.dtype);
    for (const std::int64_t extent : extents) bytes *= extent;
    buffers_.push_back(std::make_unique<Buffer>(bytes));
    slices_.push_back({tensor.name, tensor.shape, offset,
                       Tensor(buffers_.back()->data(), tensor.dtype, extents)});
  }
}

void State::fill(std::uint64_t seed) {
  for (const StateSlice& slice : slices_) {
    const auto bytes = static_cast<std::size_t>(dtype_bytes(slice.data.dtype()));
    for_each_element(slice, [&](char* at, std::int64_t global) {
      const std::uint64_t value = value_at(seed, slice.name, global);
      std::memcpy(at, &value, bytes);
    });
  }
}

void State::clear() {
  for (const auto& buffer : buffers_) {
    if (buffer->bytes() > 0)
      std::memset(buffer->data(), 0, static_cast<std::size_t>(buffer->bytes()));
  }
}

bool State::holds(std::uint64_t seed) const {
  bool same = true;
  for (const StateSlice& slice : slices_) {
    const auto bytes = static_cast<std::size_t>(dtype_bytes(slice.data.dtype()));
    for_each_element(slice, [&](const char* at, std::int64_t global) {
      const std::uint64_t value = value_at(seed, slice.name, global);
      same = same && std::memcmp(at, &value, bytes) == 0;
    });
  }
  return same;
}

CheckpointInfo info_of_step(std::int64_t step) {
  CheckpointInfo info;
  info.step = step;
  info.tokens_seen = step * 512;
  info.sampler_seed = 0xffffffffffffffffull;
  info.sampler_position = step * 8;
  info.model = small_model();
  info.run_config = R"({"train": {"steps": 20}, "note": "ä\n"})";
  info.mesh = {{"dp", 2}, {"tp", 1}};
  info.tokenizer_hash = "0123abc";
  info.tokenizer_model = std::string("model\0bytes", 11);
  return info;
}

void save_state(const std::string& root, std::int64_t step, std::uint64_t seed, int ranks) {
  run_ranks(ranks, [&](Communicator& comm) {
    State state(logical_tensors(), 0, ranks, comm.rank());
    state.fill(seed);
    save_checkpoint(comm, root, info_of_step(step), state.slices());
  });
}

void expect_loads(const std::string& path, std::uint64_t seed) {
  State state(logical_tensors(), 0, 1, 0);
  load_checkpoint(path, state.slices());
  EXPECT_TRUE(state.holds(seed)) << path;
}

}  // namespace jamba::test
