// comms/gloo_headers stands in for a header of the installed Gloo: what is made by its measure must
// be what the library makes.
#include <gloo/transport/tcp/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/tcp/pair.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <memory>

namespace muselet {
namespace {

namespace tcp = gloo::transport::tcp;

// The allocator gives no more than the next multiple of 16, and 8 bytes of its own.
void ExpectAllocated(void* pointer, size_t bytes) {
  EXPECT_GE(malloc_usable_size(pointer), bytes);
  EXPECT_LE(malloc_usable_size(pointer), bytes + 24);
}

TEST(GlooHeaders, MakePairsAndContextsAsLargeAsTheLibraryDoes) {
  tcp::attr address;
  address.hostname = "127.0.0.1";
  const auto device = std::make_shared<tcp::Device>(tcp::CreateDeviceAttr(address));
  const auto context = device->createContext(0, 2);
  context->setTimeout(std::chrono::milliseconds(1000));
  ExpectAllocated(dynamic_cast<void*>(context.get()), sizeof(tcp::Context));
  ExpectAllocated(dynamic_cast<void*>(context->createPair(1).get()), sizeof(tcp::Pair));
}

}  // namespace
}  // namespace muselet
