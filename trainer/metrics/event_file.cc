#include "trainer/metrics/event_file.h"

#include <array>
#include <bit>

namespace jamba {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0x82f63b78u : 0u);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

/// The few protocol-buffer encodings that events need.
class Message {
 public:
  Message& varint(int field, std::uint64_t value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3 | 0);
    raw_varint(value);
    return *this;
  }
  Message& fixed64(int field, double value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3 | 1);
    little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3 | 2);
    raw_varint(value.size());
    out_ += value;
    return *this;
  }
  Message& fixed32(int field, float value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3 | 5);
    little_endian(std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  Message& little_endian(std::uint64_t value, int num_bytes) {
    for (int i = 0; i < num_bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xffu);
    return *this;
  }
  Message& raw(std::string_view value) {
    out_ += value;
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  void raw_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80u);
    out_ += static_cast<char>(value);
  }

  std::string out_;
};

// Field numbers of event.proto, summary.proto and tensor.proto.
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
constexpr int kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;
constexpr int kSummaryValue = 1, kSessionStatus = 1, kPluginData = 1, kPluginName = 1;
constexpr int kTensorDType = 1, kTensorShape = 2, kTensorString = 8, kDataClass = 4;
constexpr std::uint64_t kSessionStart = 1, kStringDType = 7, kTensorDataClass = 2;

Message event(double wall_time, std::int64_t step) {
  Message message;
  message.fixed64(kWallTime, wall_time).varint(kStep, static_cast<std::uint64_t>(step));
  return message;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xffu];
  }
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

std::string frame_record(std::string_view message) {
  const std::string length = Message().little_endian(message.size(), 8).str();
  return Message()
      .raw(length)
      .little_endian(masked_crc32c(length), 4)
      .raw(message)
      .little_endian(masked_crc32c(message), 4)
      .str();
}

std::string version_event(double wall_time) {
  return Message().fixed64(kWallTime, wall_time).bytes(kFileVersion, "brain.Event:2").str();
}

std::string restart_event(double wall_time, std::int64_t step) {
  const std::string session = Message().varint(kSessionStatus, kSessionStart).str();
  return event(wall_time, step).bytes(kSessionLog, session).str();
}

std::string scalar_event(double wall_time, std::int64_t step, std::span<const ScalarValue> values) {
  Message summary;
  for (const ScalarValue& value : values) {
    summary.bytes(kSummaryValue, Message()
                                     .bytes(kTag, value.tag)
                                     .fixed32(kSimpleValue, static_cast<float>(value.value))
                                     .str());
  }
  return event(wall_time, step).bytes(kSummary, summary.str()).str();
}

std::string text_event(double wall_time, std::int64_t step, std::string_view tag,
                       std::string_view text) {
  const std::string tensor = Message()
                                 .varint(kTensorDType, kStringDType)
                                 .bytes(kTensorShape, "")  // rank 0
                                 .bytes(kTensorString, text)
                                 .str();
  const std::string plugin = Message().bytes(kPluginName, "text").str();
  const std::string metadata =
      Message().bytes(kPluginData, plugin).varint(kDataClass, kTensorDataClass).str();
  const std::string value =
      Message().bytes(kTag, tag).bytes(kTensor, tensor).bytes(kMetadata, metadata).str();
  const std::string summary = Message().bytes(kSummaryValue, value).str();
  return event(wall_time, step).bytes(kSummary, summary).str();
}

}  // namespace jamba
