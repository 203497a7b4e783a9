#pragma once
// The part of cuDNN's C++ interface that this project uses: graphs of one fused attention. Names
// and meanings are the real ones.

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace cudnn_frontend {

enum class DataType_t { NOT_SET, FLOAT, BFLOAT16, INT32, INT64 };
enum class DiagonalAlignment_t { TOP_LEFT, BOTTOM_RIGHT };
enum class HeurMode_t { A, B, FALLBACK };

class error_object {
 public:
  error_object() = default;
  explicit error_object(std::string message) : message_(std::move(message)) {}
  bool is_good() const { return message_.empty(); }
  bool is_bad() const { return !is_good(); }
  std::string get_message() { return message_; }

 private:
  std::string message_;
};

namespace graph {

class Tensor_attributes {
 public:
  using Pointer = std::shared_ptr<Tensor_attributes>;

  Tensor_attributes& set_uid(std::int64_t value) { return uid = value, *this; }
  Tensor_attributes& set_data_type(DataType_t value) { return type = value, *this; }
  Tensor_attributes& set_dim(const std::vector<std::int64_t>& value) { return dim = value, *this; }
  Tensor_attributes& set_stride(const std::vector<std::int64_t>& value) {
    return stride = value, *this;
  }
  Tensor_attributes& set_ragged_offset(const Pointer& value) { return ragged = value, *this; }
  Tensor_attributes& set_output(bool value) { return output = value, *this; }

  std::int64_t uid = 0;
  DataType_t type = DataType_t::NOT_SET;
  std::vector<std::int64_t> dim, stride;
  Pointer ragged;
  bool output = false;
};

struct Mask {
  std::optional<float> scale;
  DiagonalAlignment_t alignment = DiagonalAlignment_t::TOP_LEFT;
  std::optional<int> right_bound;
  bool padding = false;
  Tensor_attributes::Pointer query_lengths, key_lengths;
};

template <class Self>
class Masked {
 public:
  Self& set_attn_scale(float value) { return mask.scale = value, self(); }
  Self& set_diagonal_alignment(DiagonalAlignment_t value) { return mask.alignment = value, self(); }
  Self& set_diagonal_band_right_bound(int value) { return mask.right_bound = value, self(); }
  Self& set_padding_mask(bool value) { return mask.padding = value, self(); }
  Self& set_seq_len_q(const Tensor_attributes::Pointer& t) {
    return mask.query_lengths = t, self();
  }
  Self& set_seq_len_kv(const Tensor_attributes::Pointer& t) { return mask.key_lengths = t, self(); }

  Mask mask;

 private:
  Self& self() { return static_cast<Self&>(*this); }
};

class SDPA_attributes : public Masked<SDPA_attributes> {
 public:
  SDPA_attributes& set_generate_stats(bool value) { return statistics = value, *this; }

  bool statistics = false;
};

class SDPA_backward_attributes : public Masked<SDPA_backward_attributes> {
 public:
  SDPA_backward_attributes& set_deterministic_algorithm(bool value) {
    return deterministic = value, *this;
  }
  SDPA_backward_attributes& set_max_total_seq_len_q(std::int64_t n) { return queries = n, *this; }
  SDPA_backward_attributes& set_max_total_seq_len_kv(std::int64_t n) { return keys = n, *this; }

  bool deterministic = false;
  std::optional<std::int64_t> queries, keys;
};

class Graph {
 public:
  using Pointer = Tensor_attributes::Pointer;

  Graph& set_io_data_type(DataType_t value) { return io = value, *this; }
  Graph& set_intermediate_data_type(DataType_t value) { return intermediate = value, *this; }
  Graph& set_compute_data_type(DataType_t value) { return compute = value, *this; }
  Pointer tensor(const Tensor_attributes&);
  /// {out, statistics}
  std::array<Pointer, 2> sdpa(const Pointer& q, const Pointer& k, const Pointer& v,
                              const SDPA_attributes&);
  /// {dq, dk, dv}
  std::array<Pointer, 3> sdpa_backward(const Pointer& q, const Pointer& k, const Pointer& v,
                                       const Pointer& out, const Pointer& dout,
                                       const Pointer& statistics, const SDPA_backward_attributes&);
  error_object build(const cudnnHandle_t&, const std::vector<HeurMode_t>&);
  std::int64_t get_workspace_size() const;
  error_object execute(cudnnHandle_t, std::unordered_map<std::int64_t, void*>& memory,
                       void* workspace) const;

 private:
  /// What a graph holds at most; the twin knows graphs of one node.
  struct Node {
    Mask mask;
    Pointer q, k, v, out, statistics;
    Pointer dout, dq, dk, dv;  // of a backward
    bool deterministic = false;
    std::optional<std::int64_t> most_queries, most_keys;

    bool backward() const { return dout != nullptr; }
    std::vector<Pointer> tensors() const;
  };
  class Run;

  Pointer result();

  DataType_t io = DataType_t::NOT_SET, intermediate = DataType_t::NOT_SET,
             compute = DataType_t::NOT_SET;
  std::vector<Pointer> tensors_;
  std::optional<Node> node_;
  bool built_ = false;
};

}  // namespace graph
}  // namespace cudnn_frontend
