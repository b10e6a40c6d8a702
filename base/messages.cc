#include "base/messages.h"

#include <array>

namespace muselet {

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kGateway:
      return "gateway";
    case Role::kScheduler:
      return "scheduler";
    case Role::kNode:
      return "node";
    case Role::kOperator:
      return "operator";
  }
  return "unknown";
}

std::string_view MessageName(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "hello",  "welcome", "unknown", "goodbye",      "heartbeat", "model_table",
      "place",  "ticket",  "refused", "lost",         "release",   "submit",
      "cancel", "tokens",  "report",  "cache_events", "drain",     "drain_answer"};
  return kNames[message.index()];
}

}  // namespace muselet
