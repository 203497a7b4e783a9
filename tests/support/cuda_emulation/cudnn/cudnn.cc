// cuDNN's twin: graphs of one fused attention, in double precision, element by element. Rejects
// what it does not implement, and what the real one does not promise to take.

#include <cudnn_frontend.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/support/cuda_emulation/bf16.h"
#include "tests/support/cuda_emulation/emulation.h"

using cuda_emulation::fail;

struct cudnnContext {
  cudaStream_t stream = nullptr;
};

const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_SUCCESS ? "success" : "an error of cuDNN";
}
std::size_t cudnnGetVersion() { return 0; }
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

namespace cudnn_frontend::graph {

namespace {

constexpr std::int64_t kWorkspaceBytes = 4096, kWorkspaceAlignment = 256, kRowAlignment = 16;
constexpr std::int64_t kMostElementsOfAHead = 128;

using Pointer = Tensor_attributes::Pointer;
using Dims = std::vector<std::int64_t>;

std::int64_t element_bytes(DataType_t type) {
  switch (type) {
    case DataType_t::BFLOAT16:
      return 2;
    case DataType_t::FLOAT:
    case DataType_t::INT32:
      return 4;
    case DataType_t::INT64:
      return 8;
    case DataType_t::NOT_SET:
      break;
  }
  fail("cuDNN: a tensor without a type");
}

void expect_dims(const Tensor_attributes& t, const Dims& dims, const char* what) {
  if (t.dim != dims || t.stride.size() != dims.size())
    fail(std::string("cuDNN: ") + what + " has other dims than the attention");
}

void expect_numbers(const Pointer& t, std::int64_t count, bool may_be_long, const char* what) {
  if (t == nullptr) fail(std::string("cuDNN: no ") + what);
  expect_dims(*t, {count, 1, 1, 1}, what);
  if (t->type != DataType_t::INT32 && !(may_be_long && t->type == DataType_t::INT64))
    fail(std::string("cuDNN: the type of ") + what);
}

}  // namespace

std::vector<Pointer> Graph::Node::tensors() const {
  std::vector<Pointer> all;
  for (const Pointer& t : {q, k, v, out, statistics, dout, dq, dk, dv}) {
    if (t == nullptr) continue;
    all.push_back(t);
    if (t->ragged != nullptr) all.push_back(t->ragged);
  }
  for (const Pointer& t : {mask.query_lengths, mask.key_lengths}) {
    if (t != nullptr) all.push_back(t);
  }
  return all;
}

Pointer Graph::tensor(const Tensor_attributes& t) {
  return tensors_.emplace_back(std::make_shared<Tensor_attributes>(t));
}

Pointer Graph::result() { return tensor({}); }

std::array<Pointer, 2> Graph::sdpa(const Pointer& q, const Pointer& k, const Pointer& v,
                                   const SDPA_attributes& options) {
  if (node_) fail("cuDNN: a second node in a graph");
  if (!options.statistics) fail("cuDNN: attention without the statistics that backward needs");
  node_ = Node{options.mask, q, k, v, result(), result(), {}, {}, {}, {}, false, {}, {}};
  return {node_->out, node_->statistics};
}

std::array<Pointer, 3> Graph::sdpa_backward(const Pointer& q, const Pointer& k, const Pointer& v,
                                            const Pointer& out, const Pointer& dout,
                                            const Pointer& statistics,
                                            const SDPA_backward_attributes& options) {
  if (node_) fail("cuDNN: a second node in a graph");
  node_ = Node{options.mask,
               q,
               k,
               v,
               out,
               statistics,
               dout,
               result(),
               result(),
               result(),
               options.deterministic,
               options.queries,
               options.keys};
  return {node_->dq, node_->dk, node_->dv};
}

error_object Graph::build(const cudnnHandle_t&, const std::vector<HeurMode_t>& modes) {
  if (!node_ || modes.empty()) fail("cuDNN: a graph without a node, or without heuristics");
  if (compute != DataType_t::FLOAT || intermediate != DataType_t::FLOAT)
    fail("cuDNN: sums in anything but float32");
  Node& n = *node_;
  std::set<std::int64_t> uids;
  for (const Pointer& t : {n.q, n.k, n.v, n.out, n.dout, n.dq, n.dk, n.dv}) {
    if (t != nullptr && t->type == DataType_t::NOT_SET) t->type = io;
  }
  std::set<Pointer> seen;
  for (const Pointer& t : n.tensors()) {
    if (seen.insert(t).second && !uids.insert(t->uid).second)
      fail("cuDNN: two tensors with the uid " + std::to_string(t->uid));
    if (t->dim.size() != 4 || t->stride.size() != 4) fail("cuDNN: a tensor that has not four dims");
  }
  const Dims &q = n.q->dim, &k = n.k->dim;
  const std::int64_t batch = q[0], elements = q[3];
  if (k[0] != batch || k[3] != elements || k[1] == 0 || q[1] % k[1] != 0)
    fail("cuDNN: queries and keys that do not fit each other");
  for (const Pointer& t : {n.out, n.dout, n.dq})
    if (t != nullptr) expect_dims(*t, q, "a tensor of queries");
  for (const Pointer& t : {n.v, n.dk, n.dv})
    if (t != nullptr) expect_dims(*t, k, "a tensor of keys");
  expect_dims(*n.statistics, {batch, q[1], q[2], 1}, "statistics");
  if (n.statistics->type != DataType_t::FLOAT) fail("cuDNN: statistics in anything but float32");
  for (const Pointer& t :
       {n.dq, n.dk, n.dv, n.backward() ? nullptr : n.out, n.backward() ? nullptr : n.statistics})
    if (t != nullptr && !t->output) fail("cuDNN: a result that stays inside the graph");
  if (!n.mask.scale || n.mask.right_bound != 0)
    fail("cuDNN: attention that is not causal, or not scaled");
  const bool ragged = n.q->ragged != nullptr;
  for (const Pointer& t : {n.q, n.k, n.v, n.out, n.statistics, n.dout, n.dq, n.dk, n.dv}) {
    if (t == nullptr) continue;
    if ((t->ragged != nullptr) != ragged) fail("cuDNN: some tensors packed, some not");
    if (ragged) expect_numbers(t->ragged, batch + 1, true, "places of packed sequences");
  }
  if (ragged != n.mask.padding) fail("cuDNN: packed tensors go with a padding mask");
  if (n.mask.padding) {
    expect_numbers(n.mask.query_lengths, batch, false, "lengths of queries");
    expect_numbers(n.mask.key_lengths, batch, false, "lengths of keys");
  }
  if (n.backward()) {
    if (!n.deterministic) fail("cuDNN: sums in any order");
    if (ragged && (!n.most_queries || !n.most_keys))
      fail("cuDNN: a backward that takes workspace for all sequences at full length");
  }
  if (io != DataType_t::BFLOAT16 || elements % 8 != 0 || elements > kMostElementsOfAHead)
    return error_object("the twin knows heads of up to 128 elements, a multiple of 8, in bfloat16");
  built_ = true;
  return {};
}

std::int64_t Graph::get_workspace_size() const { return kWorkspaceBytes; }

/// One call, with the memory of its tensors.
class Graph::Run {
 public:
  Run(const Node& node, const std::unordered_map<std::int64_t, void*>& memory)
      : n_(node), memory_(memory) {}

  void operator()() const {
    const std::int64_t batch = n_.q->dim[0];
    for (std::int64_t b = 0; b < batch; ++b) {
      const std::int64_t queries =
          n_.mask.padding ? number(n_.mask.query_lengths, b) : n_.q->dim[2];
      const std::int64_t keys = n_.mask.padding ? number(n_.mask.key_lengths, b) : n_.k->dim[2];
      if (queries < 0 || queries > n_.q->dim[2] || keys < 0 || keys > n_.k->dim[2])
        fail("cuDNN: a sequence's length out of bounds");
      if (queries > 0) attend(b, queries, keys);
    }
  }

 private:
  using Values = std::vector<double>;

  std::int64_t number(const Pointer& t, std::int64_t i) const {
    const void* const data = memory_.at(t->uid);
    const auto bytes = static_cast<std::size_t>(t->dim[0] * element_bytes(t->type));
    cuda_emulation::expect_written(data, bytes, "cuDNN: lengths and places");
    return t->type == DataType_t::INT64 ? static_cast<const std::int64_t*>(data)[i]
                                        : static_cast<const std::int32_t*>(data)[i];
  }

  /// Bytes of sequence b's tokens in memory; tokens lie with all their heads together if packed.
  char* sequence(const Pointer& t, std::int64_t b, std::int64_t tokens) const {
    const Dims &dim = t->dim, &stride = t->stride;
    std::int64_t first = b * stride[0];
    if (t->ragged != nullptr) {
      first = number(t->ragged, b);
      if (stride[2] != dim[1] * dim[3] || number(t->ragged, b + 1) - first < tokens * stride[2])
        fail("cuDNN: packed sequences that overlap");
    }
    char* const data = static_cast<char*>(memory_.at(t->uid)) + first * element_bytes(t->type);
    cuda_emulation::expect_device_range(data, extent(t, tokens), "cuDNN: a sequence");
    return data;
  }
  std::size_t extent(const Pointer& t, std::int64_t tokens) const {
    const std::int64_t elements = 1 + (t->dim[1] - 1) * t->stride[1] + (tokens - 1) * t->stride[2] +
                                  (t->dim[3] - 1) * t->stride[3];
    return static_cast<std::size_t>(elements * element_bytes(t->type));
  }

  /// [heads, tokens, elements] of sequence b.
  Values read(const Pointer& t, std::int64_t b, std::int64_t tokens) const {
    const char* const data = sequence(t, b, tokens);
    cuda_emulation::expect_written(data, extent(t, tokens), "cuDNN: an operand");
    Values out;
    visit(t, tokens, [&](std::int64_t at) {
      out.push_back(
          t->type == DataType_t::FLOAT
              ? reinterpret_cast<const float*>(data)[at]
              : cuda_emulation::from_bf16(reinterpret_cast<const std::uint16_t*>(data)[at]));
    });
    return out;
  }
  void write(const Pointer& t, std::int64_t b, std::int64_t tokens, const Values& values) const {
    char* const data = sequence(t, b, tokens);
    std::size_t next = 0;
    visit(t, tokens, [&](std::int64_t at) {
      const auto value = static_cast<float>(values[next++]);
      if (t->type == DataType_t::FLOAT) {
        reinterpret_cast<float*>(data)[at] = value;
        return;
      }
      reinterpret_cast<std::uint16_t*>(data)[at] = cuda_emulation::to_bf16(value);
    });
    cuda_emulation::mark_written(data, extent(t, tokens));
  }
  template <class F>
  static void visit(const Pointer& t, std::int64_t tokens, F&& f) {
    for (std::int64_t h = 0; h < t->dim[1]; ++h) {
      for (std::int64_t i = 0; i < tokens; ++i) {
        for (std::int64_t d = 0; d < t->dim[3]; ++d)
          f(h * t->stride[1] + i * t->stride[2] + d * t->stride[3]);
      }
    }
  }

  static double dot(const double* a, const double* b, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }
  static void add(double* to, double factor, const double* x, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) to[i] += factor * x[i];
  }

  void attend(std::int64_t b, std::int64_t queries, std::int64_t keys) const {
    const std::int64_t heads = n_.q->dim[1], group = heads / n_.k->dim[1], d = n_.q->dim[3];
    const double scale = static_cast<double>(*n_.mask.scale);
    const Values q = read(n_.q, b, queries), k = read(n_.k, b, keys), v = read(n_.v, b, keys);
    Values out(q.size()), statistics(static_cast<std::size_t>(heads * queries));
    Values dout, dq(q.size()), dk(k.size()), dv(v.size());
    if (n_.backward()) {
      out = read(n_.out, b, queries);
      statistics = read(n_.statistics, b, queries);
      dout = read(n_.dout, b, queries);
    }
    const std::int64_t shift =
        n_.mask.alignment == DiagonalAlignment_t::BOTTOM_RIGHT ? keys - queries : 0;
    for (std::int64_t row = 0; row < heads * queries; ++row) {
      const std::int64_t head = row / queries, visible = std::min(row % queries + shift + 1, keys);
      const std::int64_t first = head / group * keys;
      const double* const query = &q[row * d];
      const auto score = [&](std::int64_t key) {
        return scale * dot(query, &k[(first + key) * d], d);
      };
      if (!n_.backward()) {
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (std::int64_t key = 0; key < visible; ++key) most = std::max(most, score(key));
        for (std::int64_t key = 0; key < visible; ++key) {
          const double weight = std::exp(score(key) - most);
          sum += weight;
          add(&out[row * d], weight, &v[(first + key) * d], d);
        }
        for (std::int64_t i = 0; i < d; ++i) out[row * d + i] /= sum;
        statistics[row] = most + std::log(sum);
        continue;
      }
      const double delta = dot(&dout[row * d], &out[row * d], d);
      for (std::int64_t key = 0; key < visible; ++key) {
        const std::int64_t at = (first + key) * d;
        const double weight = std::exp(score(key) - statistics[row]);
        const double dscore = weight * scale * (dot(&dout[row * d], &v[at], d) - delta);
        add(&dv[at], weight, &dout[row * d], d);
        add(&dk[at], dscore, query, d);
        add(&dq[row * d], dscore, &k[at], d);
      }
    }
    if (n_.backward()) {
      write(n_.dq, b, queries, dq);
      write(n_.dk, b, keys, dk);
      write(n_.dv, b, keys, dv);
    } else {
      write(n_.out, b, queries, out);
      write(n_.statistics, b, queries, statistics);
    }
  }

  Node n_;
  std::unordered_map<std::int64_t, void*> memory_;
};

error_object Graph::execute(cudnnHandle_t handle, std::unordered_map<std::int64_t, void*>& memory,
                            void* workspace) const {
  if (!built_) fail("cuDNN: running a graph that is not built");
  for (const Pointer& t : node_->tensors()) {
    const auto found = memory.find(t->uid);
    if (found == memory.end())
      return error_object("no memory for the tensor " + std::to_string(t->uid));
    if (t->type == DataType_t::BFLOAT16 &&
        reinterpret_cast<std::uintptr_t>(found->second) % kRowAlignment != 0)
      fail("cuDNN: a tensor that is aligned to less than 16 bytes");
  }
  cuda_emulation::expect_device_range(workspace, kWorkspaceBytes, "cuDNN: the workspace");
  if (reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment != 0)
    fail("cuDNN: a workspace that is aligned to less than 256 bytes");
  cuda_emulation::enqueue(handle->stream, "cuDNN attention", [run = Run(*node_, memory)] {
    const cuda_emulation::DeviceAccess access;
    run();
    return true;
  });
  return {};
}

}  // namespace cudnn_frontend::graph
