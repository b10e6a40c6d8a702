#include "comms/rank_group.h"

namespace muselet {

std::string_view RankOperationName(RankOperation operation) {
  switch (operation) {
    case RankOperation::kAllReduce:
      return "all_reduce";
    case RankOperation::kAllGather:
      return "all_gather";
    case RankOperation::kBroadcast:
      return "broadcast";
    case RankOperation::kSend:
      return "send";
    case RankOperation::kRecv:
      return "recv";
  }
  return "unknown";
}

}  // namespace muselet
