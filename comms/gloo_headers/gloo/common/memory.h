// Debian's libgloo-dev leaves out this header, which its own gloo/transport/tcp headers include.
// They need of it how large a weak pointer to a buffer is, and no more; where the real header is
// there, it is found first (comms/CMakeLists.txt). A test compares the sizes with the library's.
#pragma once

#include <memory>

namespace gloo {

template <typename T>
class NonOwningPtr;

template <typename T>
class WeakNonOwningPtr {
 private:
  std::weak_ptr<T> pointer_;
};

}  // namespace gloo
