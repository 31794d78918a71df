// Buffer: shared, 64-byte aligned memory. Tensors, Variables and executables hold it; who holds it alone may write in
// place.
//
//   const Buffer a = Buffer::allocate(1024), b = a;
//   assert(b.data() == a.data() && !a.unique() && a.clone().unique());
#pragma once

#include <cstddef>
#include <memory>

namespace bp {

// Bytes; copies share them.
class Buffer {
 public:
  Buffer() = default;
  // Uninitialised memory of `bytes` bytes, aligned to 64, with 64 readable bytes of slack behind it.
  // Throws Error(value) when the system refuses; zero bytes are allowed.
  static Buffer allocate(std::size_t bytes);
  // Memory that somebody else owns (a mapped file, a user's array); `keep_alive` is held as long as the Buffer lives.
  static Buffer wrap(void* data, std::size_t bytes, std::shared_ptr<void> keep_alive);

  // Whether it holds memory, also of no bytes.
  explicit operator bool() const noexcept { return static_cast<bool>(memory_); }
  std::size_t bytes() const noexcept { return bytes_; }        // without the slack
  const void* data() const noexcept { return memory_.get(); }  // null when empty
  // The same memory to write to; whoever shares it sees what is written.
  void* mutable_data() const noexcept { return memory_.get(); }
  // data() as elements of T; not checked.
  template <class T> const T* as() const noexcept { return static_cast<const T*>(data()); }
  // mutable_data() as elements of T; not checked.
  template <class T> T* as_mutable() const noexcept { return static_cast<T*>(mutable_data()); }
  // True when no other Buffer shares this memory: the only case in which an executable writes in place.
  bool unique() const noexcept { return memory_.use_count() == 1 && !wrapped_; }

  Buffer clone() const;  // a copy that is not shared

 private:
  std::shared_ptr<void> memory_;
  std::size_t bytes_ = 0;
  bool wrapped_ = false;
};

}  // namespace bp
