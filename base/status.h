// Operating faults as values: bad input, the network, a full queue, a peer that died.
//
// A Status is OK or a code and a message. Codes say what the caller should do, not where the fault
// arose (after Abseil's canonical codes). A message names the thing and the fix, and is fit to be
// shown to the user who caused it. Broken invariants are not Status values: see base/check.h.
//
// Thread-safe in the way of std::string: concurrent reads of one object are fine.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace muselet {

enum class StatusCode : int {
  kOk = 0,
  kInvalidArgument = 1,    // the input is wrong: do not retry
  kNotFound = 2,           // the named thing does not exist: do not retry
  kPermissionDenied = 3,   // missing or wrong key: do not retry
  kResourceExhausted = 4,  // a limit is reached: back off, then retry
  kUnavailable = 5,        // a peer is away or starting: retry
  kDeadlineExceeded = 6,   // the time given is over: retry only with more time
  kCancelled = 7,          // the caller went away
  kDataLoss = 8,           // stored bytes are truncated or corrupt
  kInternal = 9,           // a fault of ours: report it
};

// Lower-case words for logs, metrics and wire errors, e.g. "invalid_argument".
std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  // REQUIRES: code is not kOk.
  Status(StatusCode code, std::string message);

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // "code_name: message", or "ok".
  std::string ToString() const;
  // The same code with `context + ": "` before the message. OK stays OK.
  Status WithContext(std::string_view context) const;

  friend bool operator==(const Status&, const Status&) = default;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() {
  return Status();
}
Status InvalidArgument(std::string message);
Status NotFound(std::string message);
Status PermissionDenied(std::string message);
Status ResourceExhausted(std::string message);
Status Unavailable(std::string message);
Status DeadlineExceeded(std::string message);
Status Cancelled(std::string message);
Status DataLoss(std::string message);
Status Internal(std::string message);

// A value or the Status that explains its absence. Dereferencing a Result that is not ok() is a
// broken invariant.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : value_(std::move(value)) {}  // NOLINT: implicit so that functions can return a T
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit, as above
    CHECK(!status_.ok(), "a Result needs a value or a fault");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& value() & {
    CHECK(ok(), status_.message());
    return *value_;
  }
  const T& value() const& {
    CHECK(ok(), status_.message());
    return *value_;
  }
  T&& value() && {
    CHECK(ok(), status_.message());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace muselet

// Returns from the enclosing function (which returns Status or Result) if `expr` is not OK.
#define RETURN_IF_ERROR(expr)                          \
  do {                                                 \
    ::muselet::Status muselet_status_ = (expr);        \
    if (!muselet_status_.ok()) return muselet_status_; \
  } while (false)

#define MUSELET_CONCAT_INNER(a, b) a##b
#define MUSELET_CONCAT(a, b) MUSELET_CONCAT_INNER(a, b)
// ASSIGN_OR_RETURN(auto x, F()): x = value of F(), or return its Status. For an expression with
// commas in the declaration, use parentheses or a typedef.
#define ASSIGN_OR_RETURN(declaration, expr) \
  MUSELET_ASSIGN_OR_RETURN(MUSELET_CONCAT(muselet_result_, __LINE__), declaration, expr)
#define MUSELET_ASSIGN_OR_RETURN(result, declaration, expr) \
  auto result = (expr);                                     \
  if (!result.ok()) return result.status();                 \
  declaration = std::move(result).value()
