#include "base/types.h"

#include <sys/random.h>

#include <charconv>

#include "base/check.h"

namespace muselet {

std::string RequestId::ToString() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(32, '0');
  for (int i = 0; i < 16; ++i) {
    text[15 - i] = kDigits[(high >> (4 * i)) & 15];
    text[31 - i] = kDigits[(low >> (4 * i)) & 15];
  }
  return text;
}

Result<RequestId> RequestId::Parse(std::string_view text) {
  RequestId id;
  if (text.size() != 32) return InvalidArgument("a request id has 32 hex digits");
  const char* middle = text.data() + 16;
  const char* end = text.data() + 32;
  const auto high = std::from_chars(text.data(), middle, id.high, 16);
  const auto low = std::from_chars(middle, end, id.low, 16);
  if (high.ptr != middle || low.ptr != end) {
    return InvalidArgument("a request id has 32 hex digits");
  }
  return id;
}

RequestId RequestId::Random() {
  RequestId id;
  const ssize_t count = getrandom(&id, sizeof(id), 0);
  CHECK(count == static_cast<ssize_t>(sizeof(id)), "getrandom gave ", count, " bytes");
  return id;
}

std::string_view RequestClassName(RequestClass value) {
  switch (value) {
    case RequestClass::kRealtime:
      return "realtime";
    case RequestClass::kInteractive:
      return "interactive";
    case RequestClass::kBatch:
      return "batch";
  }
  return "unknown";
}

std::string_view FinishReasonName(FinishReason value) {
  switch (value) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

}  // namespace muselet
