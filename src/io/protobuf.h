// The wire format of protocol buffers, as far as event files need it: a message is a string of fields.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace bp::io {

class Message {
 public:
  Message& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& number(int field, double value) {  // double
    key(field, 1);
    fixed(std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  Message& single(int field, float value) {  // float
    key(field, 5);
    fixed(std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  Message& bytes(int field, std::string_view value) {  // string, bytes, or a message
    key(field, 2);
    varint(value.size());
    out_ += value;
    return *this;
  }
  Message& numbers(int field, const std::vector<double>& values) {  // repeated double, packed
    Message packed;
    for (const double v : values) packed.fixed(std::bit_cast<std::uint64_t>(v));
    return bytes(field, packed.str());
  }
  const std::string& str() const noexcept { return out_; }

 private:
  void key(int field, int wire_type) {
    varint(static_cast<std::uint64_t>(field) << 3 | static_cast<unsigned>(wire_type));
  }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  template <class T> void fixed(T value) {
    for (std::size_t i = 0; i < sizeof value; ++i) out_ += static_cast<char>(value >> (8 * i));
  }
  std::string out_;
};

}  // namespace bp::io
