#include "kernels/attention/attention_graph_cuda.h"

#include <cudnn_frontend.h>

namespace jamba::cuda {

namespace {

using cudnn_frontend::DataType_t;
using cudnn_frontend::graph::Graph;
using cudnn_frontend::graph::Tensor_attributes;
using Uid = AttentionUid;
using TensorPtr = std::shared_ptr<Tensor_attributes>;

/// One attention as a graph of cuDNN's. With segments, they are its batch: tensors are packed, and
/// a segment's place in them comes from memory.
class Attention {
 public:
  Attention(const AttentionShape& s, std::int64_t segments, float scale)
      : s_(s), segments_(segments), scale_(scale) {
    graph_->set_io_data_type(DataType_t::BFLOAT16)
        .set_intermediate_data_type(DataType_t::FLOAT)
        .set_compute_data_type(DataType_t::FLOAT);
    if (segments == 0) return;
    query_lengths_ = numbers(Uid::query_lengths, DataType_t::INT32, segments);
    key_lengths_ = numbers(Uid::key_lengths, DataType_t::INT32, segments);
    query_places_ = numbers(Uid::query_places, DataType_t::INT64, segments + 1);
    key_places_ = numbers(Uid::key_places, DataType_t::INT64, segments + 1);
    statistics_places_ = numbers(Uid::statistics_places, DataType_t::INT64, segments + 1);
  }

  std::unique_ptr<Graph> forward() {
    auto options = with_mask(cudnn_frontend::graph::SDPA_attributes().set_generate_stats(true));
    const auto [out, statistics] =
        graph_->sdpa(queries(Uid::q), keys(Uid::k), keys(Uid::v), options);
    describe_queries(*out, Uid::out).set_output(true);
    describe_statistics(*statistics).set_output(true);
    return std::move(graph_);
  }

  std::unique_ptr<Graph> backward() {
    auto options = with_mask(
        cudnn_frontend::graph::SDPA_backward_attributes().set_deterministic_algorithm(true));
    if (segments_ > 0) {
      options.set_max_total_seq_len_q(s_.batch * s_.seq)
          .set_max_total_seq_len_kv(s_.batch * s_.seq_keys);
    }
    Tensor_attributes statistics;
    const auto [dq, dk, dv] = graph_->sdpa_backward(
        queries(Uid::q), keys(Uid::k), keys(Uid::v), queries(Uid::out), queries(Uid::dout),
        graph_->tensor(describe_statistics(statistics)), options);
    describe_queries(*dq, Uid::dq).set_output(true);
    describe_keys(*dk, Uid::dk).set_output(true);
    describe_keys(*dv, Uid::dv).set_output(true);
    return std::move(graph_);
  }

 private:
  std::int64_t batch() const { return segments_ > 0 ? segments_ : s_.batch; }

  TensorPtr numbers(std::int64_t uid, DataType_t type, std::int64_t count) {
    return graph_->tensor(Tensor_attributes()
                              .set_uid(uid)
                              .set_data_type(type)
                              .set_dim({count, 1, 1, 1})
                              .set_stride({1, 1, 1, 1}));
  }

  /// [batch, heads, tokens, elements] of what lies in memory as [batch, tokens, heads, elements].
  Tensor_attributes& describe(Tensor_attributes& t, std::int64_t uid, std::int64_t heads,
                              std::int64_t tokens, std::int64_t elements, const TensorPtr& places) {
    t.set_uid(uid)
        .set_dim({batch(), heads, tokens, elements})
        .set_stride({tokens * heads * elements, elements, heads * elements, 1});
    if (segments_ > 0) t.set_ragged_offset(places);
    return t;
  }
  Tensor_attributes& describe_queries(Tensor_attributes& t, std::int64_t uid) {
    return describe(t, uid, s_.num_heads, s_.seq, s_.head_dim, query_places_);
  }
  Tensor_attributes& describe_keys(Tensor_attributes& t, std::int64_t uid) {
    return describe(t, uid, s_.num_kv_heads, s_.seq_keys, s_.head_dim, key_places_);
  }
  Tensor_attributes& describe_statistics(Tensor_attributes& t) {
    t.set_data_type(DataType_t::FLOAT);
    if (segments_ > 0)
      return describe(t, Uid::statistics, s_.num_heads, s_.seq, 1, statistics_places_);
    return t.set_uid(Uid::statistics)
        .set_dim({s_.batch, s_.num_heads, s_.seq, 1})
        .set_stride({s_.num_heads * s_.seq, s_.seq, 1, 1});
  }

  TensorPtr queries(std::int64_t uid) {
    Tensor_attributes t;
    return graph_->tensor(describe_queries(t, uid));
  }
  TensorPtr keys(std::int64_t uid) {
    Tensor_attributes t;
    return graph_->tensor(describe_keys(t, uid));
  }

  template <class Options>
  Options with_mask(Options options) {
    using cudnn_frontend::DiagonalAlignment_t;
    options.set_attn_scale(scale_)
        .set_diagonal_alignment(s_.seq == s_.seq_keys ? DiagonalAlignment_t::TOP_LEFT
                                                      : DiagonalAlignment_t::BOTTOM_RIGHT)
        .set_diagonal_band_right_bound(0);
    if (segments_ > 0)
      options.set_padding_mask(true).set_seq_len_q(query_lengths_).set_seq_len_kv(key_lengths_);
    return options;
  }

  const AttentionShape& s_;
  std::int64_t segments_;
  float scale_;
  std::unique_ptr<Graph> graph_ = std::make_unique<Graph>();
  TensorPtr query_lengths_, key_lengths_, query_places_, key_places_, statistics_places_;
};

}  // namespace

std::unique_ptr<Graph> make_attention_graph(Direction direction, const AttentionShape& shape,
                                            std::int64_t segments, float scale) {
  Attention attention(shape, segments, scale);
  return direction == Direction::forward ? attention.forward() : attention.backward();
}

}  // namespace jamba::cuda
