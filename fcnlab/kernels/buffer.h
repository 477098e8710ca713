// Memory that operators work in.
#pragma once

#include "panels.h"

#include <cstdint>

// Uninitialised panels. Their memory is kept for the next operator, as fresh pages would cost as much as the
// arithmetic. Throws std::bad_alloc.
class Buffer {
 public:
  explicit Buffer(int64_t panels);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Panel* data() { return static_cast<Panel*>(memory_); }

 private:
  void* memory_;
  int64_t size_;  // bytes
};
