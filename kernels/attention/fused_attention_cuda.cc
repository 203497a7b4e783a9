#include "kernels/attention/fused_attention.h"

#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <bit>
#include <cstdio>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>

#include "kernels/attention/attention_graph_cuda.h"
#include "kernels/attention/segments.h"
#include "kernels/core/cuda/stream_cuda.h"
#include "kernels/core/handle.h"
#include "kernels/pointwise/copy_blocks.h"

namespace jamba::cuda {

namespace {

using cudnn_frontend::graph::Graph;
using Uid = AttentionUid;

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw LogicError(fmt::format("cuDNN: {}: {}", what, cudnnGetErrorString(status)));
}

// What fails in a destructor was reported by an earlier call, or the process ends.
void destroy_handle(cudnnHandle_t handle) { static_cast<void>(cudnnDestroy(handle)); }
using Handle = UniqueHandle<cudnnHandle_t, destroy_handle>;

using Memory = std::unordered_map<std::int64_t, void*>;

/// The graphs of a stream, by what they were made for.
class Graphs final : public BackendState {
 public:
  explicit Graphs(Stream& stream) {
    cudnnHandle_t handle = nullptr;
    check(cudnnCreate(&handle), "starting");
    handle_ = Handle(handle);
    check(cudnnSetStream(handle, native(stream)), "choosing a stream");
  }

  cudnnHandle_t handle() const { return handle_.get(); }

  /// Null if cuDNN has no kernel for it.
  const Graph* graph(Direction direction, const AttentionShape& s, std::int64_t segments,
                     float scale) {
    const Key key{direction,      s.batch,    s.seq,    s.seq_keys, s.num_heads,
                  s.num_kv_heads, s.head_dim, segments, scale};
    const auto found = graphs_.find(key);
    if (found != graphs_.end()) return found->second.get();
    // Scored texts have any length: the map must not grow for ever.
    constexpr std::size_t kMostGraphs = 256;
    if (graphs_.size() == kMostGraphs) graphs_.clear();
    return graphs_.emplace(key, make(direction, s, segments, scale)).first->second.get();
  }

 private:
  using Key = std::tuple<Direction, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t, std::int64_t, std::int64_t, float>;

  std::unique_ptr<Graph> make(Direction direction, const AttentionShape& s, std::int64_t segments,
                              float scale) const {
    auto graph = make_attention_graph(direction, s, segments, scale);
    auto status = graph->build(handle_.get(), {cudnn_frontend::HeurMode_t::A});
    if (status.is_good()) return graph;
    // Ten times slower and no different otherwise: worth a line, not an end.
    fmt::print(stderr,
               "cuDNN takes no attention {} over {} x {} queries, {} keys, {}/{} heads of {}"
               "{}: own kernels run. It says: {}\n",
               direction == Direction::forward ? "forward" : "backward", s.batch, s.seq, s.seq_keys,
               s.num_heads, s.num_kv_heads, s.head_dim, segments > 0 ? " in documents" : "",
               status.get_message());
    return nullptr;
  }

  Handle handle_;
  std::map<Key, std::unique_ptr<Graph>> graphs_;
};

/// Slots for the documents of a call, or 0 if it has none. Powers of two, so that few graphs serve
/// all steps.
std::int64_t num_slots(const Tensor& doc_start, const AttentionShape& s) {
  if (doc_start.absent()) return 0;
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(s.documents)));
}

bool takes(const AttentionShape& s, const Tensor& doc_start, std::initializer_list<Tensor> rows) {
  // The rows of a tensor core's tile. Also, generation's keys grow by one a token, and a graph
  // takes longer to make than such an attention to run.
  constexpr std::int64_t kLeastQueries = 16;
  if (s.batch == 0 || s.seq < kLeastQueries || s.head_dim % 8 != 0) return false;
  if (doc_start.present() && s.documents == 0) return false;
  for (const Tensor& t : rows) {
    if (t.dtype() != DType::bf16 || reinterpret_cast<std::uintptr_t>(t.raw()) % 16 != 0)
      return false;
  }
  return true;
}

void add(Memory& memory, const Segments& segments) {
  memory[Uid::query_lengths] = segments.query_lengths.raw();
  memory[Uid::key_lengths] = segments.key_lengths.raw();
  memory[Uid::query_places] = segments.query_places.raw();
  memory[Uid::key_places] = segments.key_places.raw();
  memory[Uid::statistics_places] = segments.statistics_places.raw();
}

void run(Stream& stream, Arena& scratch, const Graph& graph, Memory& memory) {
  constexpr std::size_t kAligned = 256;  // what cuDNN's kernels take for granted
  const auto bytes = static_cast<std::size_t>(graph.get_workspace_size());
  std::size_t room = bytes + kAligned;
  void* workspace = scratch.allocate_bytes(static_cast<std::int64_t>(room));
  std::align(kAligned, bytes, workspace, room);
  auto status = graph.execute(stream.backend_state<Graphs>().handle(), memory, workspace);
  if (status.is_bad())
    throw LogicError(fmt::format("cuDNN: running attention: {}", status.get_message()));
}

/// Packed statistics are [batch * seq, num_heads], ours [batch, num_heads, seq].
enum class Order { packed_to_ours, ours_to_packed };
void reorder(Stream& stream, Tensor to, Tensor from, const AttentionShape& s, Order order) {
  for (std::int64_t b = 0; b < s.batch; ++b) {
    const std::int64_t begin = b * s.num_heads * s.seq;
    const BlockLayout packed{begin, s.num_heads, 1}, ours{begin, 1, s.seq};
    const bool from_packed = order == Order::packed_to_ours;
    copy_blocks(stream, to, from_packed ? ours : packed, from, from_packed ? packed : ours,
                {s.seq, s.num_heads, 1});
  }
}

}  // namespace

bool fused_attention_forward(Stream& stream, Arena& scratch, Tensor out, Tensor lse, Tensor q,
                             Tensor k, Tensor v, Tensor doc_start, const AttentionShape& s,
                             float scale) {
  if (!takes(s, doc_start, {q, k, v, out})) return false;
  const std::int64_t slots = num_slots(doc_start, s);
  const Graph* const graph =
      stream.backend_state<Graphs>().graph(Direction::forward, s, slots, scale);
  if (graph == nullptr) return false;
  const ArenaScope scope(scratch);
  Memory memory{{Uid::q, q.raw()}, {Uid::k, k.raw()}, {Uid::v, v.raw()}, {Uid::out, out.raw()}};
  Tensor statistics = lse;
  if (slots > 0) {
    statistics = scratch.allocate(DType::f32, lse.dims());
    add(memory, find_segments(stream, scratch, doc_start, s, slots));
  }
  memory[Uid::statistics] = statistics.raw();
  run(stream, scratch, *graph, memory);
  if (slots > 0) reorder(stream, lse, statistics, s, Order::packed_to_ours);
  return true;
}

bool fused_attention_backward(Stream& stream, Arena& scratch, Tensor dq, Tensor dk, Tensor dv,
                              Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                              Tensor doc_start, const AttentionShape& s, float scale) {
  if (!takes(s, doc_start, {q, k, v, out, dout, dq, dk, dv})) return false;
  const std::int64_t slots = num_slots(doc_start, s);
  const Graph* const graph =
      stream.backend_state<Graphs>().graph(Direction::backward, s, slots, scale);
  if (graph == nullptr) return false;
  const ArenaScope scope(scratch);
  Memory memory{{Uid::q, q.raw()},     {Uid::k, k.raw()},       {Uid::v, v.raw()},
                {Uid::out, out.raw()}, {Uid::dout, dout.raw()}, {Uid::dq, dq.raw()},
                {Uid::dk, dk.raw()},   {Uid::dv, dv.raw()}};
  Tensor statistics = lse;
  if (slots > 0) {
    statistics = scratch.allocate(DType::f32, lse.dims());
    reorder(stream, statistics, lse, s, Order::ours_to_packed);
    add(memory, find_segments(stream, scratch, doc_start, s, slots));
    if (s.seq_keys > s.seq) {  // keys before the first document are in no segment
      for (const Tensor& t : {dk, dv})
        fill_bytes(stream, t.raw(), 0, t.numel() * dtype_bytes(t.dtype()));
    }
  }
  memory[Uid::statistics] = statistics.raw();
  run(stream, scratch, *graph, memory);
  return true;
}

std::string attention_library_version() {
  const std::size_t version = cudnnGetVersion();
  return fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace jamba::cuda
