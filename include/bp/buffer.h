// Buffer: shared, 64-byte aligned memory. Tensors, Variables and executables hold it; who holds it alone may write in
// place.
#pragma once

#include <cstddef>
#include <memory>

namespace bp {

class Buffer {
 public:
  Buffer() = default;
  // Uninitialised memory of `bytes` bytes, aligned to 64, with 64 readable bytes of slack behind it.
  // Throws Error(value) when the system refuses; zero bytes are allowed.
  static Buffer allocate(std::size_t bytes);
  // Memory that somebody else owns (a mapped file, a user's array); `keep_alive` is held as long as the Buffer lives.
  static Buffer wrap(void* data, std::size_t bytes, std::shared_ptr<void> keep_alive);

  explicit operator bool() const noexcept { return static_cast<bool>(memory_); }
  std::size_t bytes() const noexcept { return bytes_; }
  const void* data() const noexcept { return memory_.get(); }
  void* mutable_data() const noexcept { return memory_.get(); }
  template <class T> const T* as() const noexcept { return static_cast<const T*>(data()); }
  template <class T> T* as_mutable() const noexcept { return static_cast<T*>(mutable_data()); }
  // True when no other Buffer shares this memory: the only case in which an executable writes in place.
  bool unique() const noexcept { return memory_.use_count() == 1 && !wrapped_; }

  Buffer clone() const;

 private:
  std::shared_ptr<void> memory_;
  std::size_t bytes_ = 0;
  bool wrapped_ = false;
};

}  // namespace bp
