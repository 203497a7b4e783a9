#pragma once
// The bytes of a TensorBoard event file: a framed sequence of protocol-buffer messages.
// Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto and
// tensorflow/core/lib/io/record_writer.cc.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace jamba {

/// CRC-32C (Castagnoli) of the bytes, and the rotated form that records store.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked_crc32c(std::string_view bytes);

/// A record: length, checksum of the length, message, checksum of the message.
std::string frame_record(std::string_view message);

struct ScalarValue {
  std::string tag;
  double value = 0;  // stored as float32
};

/// Event messages. wall_time: seconds since 1970.
/// The first message of every file.
std::string version_event(double wall_time);
/// Tells readers to drop what other files hold at `step` and beyond.
std::string restart_event(double wall_time, std::int64_t step);
std::string scalar_event(double wall_time, std::int64_t step, std::span<const ScalarValue>);
/// Markdown in TensorBoard's text tab.
std::string text_event(double wall_time, std::int64_t step, std::string_view tag,
                       std::string_view text);

}  // namespace jamba
