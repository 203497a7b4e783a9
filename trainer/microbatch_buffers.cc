#include "trainer/microbatch_buffers.h"

#include <algorithm>

namespace jamba {

MicrobatchBuffers::Part::Part(const Tensor& all, std::int64_t batch, std::int64_t seq,
                              std::int64_t whole_seq)
    : memory(all) {
  std::int64_t next = 0;
  const auto take = [&](std::int64_t width) {
    const Tensor t = all.slice(next, batch * width).view({batch, width});
    next += batch * width;
    return t;
  };
  ids = take(seq);
  labels = take(seq);
  doc_start = take(seq);
  positions = take(seq);
  whole_doc_start = take(whole_seq);
}

MicrobatchBuffers::MicrobatchBuffers(const Mesh& mesh, Stream& stream, std::int64_t count,
                                     std::int64_t batch, std::int64_t seq_len)
    : mesh_(mesh),
      stream_(stream),
      sending_(Stream::on(stream.device(), 1)),
      batch_(batch),
      seq_len_(seq_len),
      split_{seq_len, mesh.shape().cp},
      documents_(static_cast<std::size_t>(count)) {
  const std::int64_t seq = split_.seq(mesh.at().cp);
  const std::int64_t whole = batch * seq_len, part = Part::size(batch, seq, seq_len);
  written_ = Buffer(3 * count * whole * dtype_bytes(DType::i32));
  staging_ = Buffer::pinned(count * part * dtype_bytes(DType::i32));
  const bool cuda = stream.device().kind == DeviceKind::cuda;
  if (cuda) on_device_ = Buffer(staging_.bytes(), stream.device());
  const Tensor written = written_.tensor(DType::i32, {3 * count, batch, seq_len});
  const Tensor staged = staging_.tensor(DType::i32, {count, part});
  const Tensor read = (cuda ? on_device_ : staging_).tensor(DType::i32, {count, part});
  for (std::int64_t i = 0; i < count; ++i) {
    const auto array = [&](std::int64_t k) {
      return written.slice(3 * i + k, 1).view({batch, seq_len});
    };
    wholes_.push_back({array(0), array(1), array(2)});
    staged_.emplace_back(staged.slice(i, 1).view({part}), batch, seq, seq_len);
    parts_.emplace_back(read.slice(i, 1).view({part}), batch, seq, seq_len);
  }
}

namespace {

/// In all sequences; one begins where the start of the token's document is the token itself.
std::int64_t count_documents(const Tensor& doc_start) {
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < doc_start.dim(0); ++b) {
    const std::int32_t* const start = doc_start.slice(b, 1).ptr<std::int32_t>();
    for (std::int64_t t = 0; t < doc_start.dim(1); ++t) count += start[t] == t ? 1 : 0;
  }
  return count;
}

}  // namespace

void MicrobatchBuffers::send(std::int64_t i) {
  const Batch& whole = wholes_[static_cast<std::size_t>(i)];
  const Part& part = staged_[static_cast<std::size_t>(i)];
  const std::int64_t seq = part.ids.dim(1), first = split_.first(mesh_.at().cp);
  sending_.synchronize();  // it has read what it was given last
  for (std::int64_t b = 0; b < batch_; ++b) {
    for (std::int64_t t = 0; t < seq; ++t) {
      const std::int64_t from = b * seq_len_ + first + t, to = b * seq + t;
      const std::int32_t start = whole.doc_start.ptr<std::int32_t>()[from];
      part.ids.ptr<std::int32_t>()[to] = whole.ids.ptr<std::int32_t>()[from];
      part.labels.ptr<std::int32_t>()[to] = whole.labels.ptr<std::int32_t>()[from];
      part.doc_start.ptr<std::int32_t>()[to] = start - static_cast<std::int32_t>(first);
      part.positions.ptr<std::int32_t>()[to] = static_cast<std::int32_t>(first + t) - start;
    }
  }
  std::copy_n(whole.doc_start.ptr<std::int32_t>(), whole.doc_start.numel(),
              part.whole_doc_start.ptr<std::int32_t>());
  documents_[static_cast<std::size_t>(i)] = count_documents(whole.doc_start);
  sending_.wait_for(stream_);  // the model has read what was there
  copy(sending_, parts_[static_cast<std::size_t>(i)].memory, part.memory);
  stream_.wait_for(sending_);
}

Microbatch MicrobatchBuffers::model_view(std::int64_t i,
                                         const std::optional<RouterNoise>& noise) const {
  const Part& part = parts_[static_cast<std::size_t>(i)];
  const std::int64_t seq = part.ids.dim(1);
  Microbatch out;
  out.sequences = {.batch = batch_,
                   .seq = seq,
                   .doc_start = part.doc_start,
                   .positions = part.positions.view({batch_ * seq}),
                   .whole_seq = seq_len_,
                   .whole_doc_start = part.whole_doc_start,
                   .documents = documents_[static_cast<std::size_t>(i)]};
  out.ids = part.ids;
  out.labels = part.labels;
  out.routing = {noise, {number(i) * batch_, seq_len_, split_.first(mesh_.at().cp)}};
  return out;
}

}  // namespace jamba
