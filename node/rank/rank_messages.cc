#include "node/rank/rank_messages.h"

#include <array>

namespace muselet {

std::string_view RankMessageName(const RankMessage& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<RankMessage>> kNames = {
      "join",  "put",   "ready", "done",  "fault",   "alive",       "form",
      "value", "start", "step",  "abort", "refused", "leader_alive"};
  return kNames[message.index()];
}

}  // namespace muselet
