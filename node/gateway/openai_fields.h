// The table of request fields: one row a field, with its type, range, meaning and setter. The rows
// are the documentation: OpenAiFields() is what a reference page is printed from.
#pragma once

#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "node/gateway/openai_request.h"

namespace muselet {

enum class FieldType { kBool, kInteger, kNumber, kString, kArray, kObject, kAny };

struct FieldContext {
  const RequestLimits& limits;
  OpenAiRequest& out;
};

struct OpenAiField {
  std::string_view name;
  FieldType type = FieldType::kAny;
  std::string_view fallback;  // what holds when the field is absent or null
  std::string_view doc;
  // Called with a value of the type and in the range; not called for null.
  std::optional<ApiError> (*set)(const Json& value, const FieldContext& context);
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_exclusive = false;
  // Of refused fields: the values, as JSON between bars, that ask for nothing and are let in.
  // Empty: false, and empty strings, arrays and objects.
  std::string_view harmless = {};
};

// All fields of an endpoint, in the order in which they are read.
std::span<const OpenAiField> OpenAiSamplingFields();    // both endpoints
std::span<const OpenAiField> OpenAiChatFields();        // chat only
std::span<const OpenAiField> OpenAiCompletionFields();  // completions only
std::span<const OpenAiField> OpenAiRefusedFields();     // known, not supported

// Checks `value` against a row and sets it.
std::optional<ApiError> ApplyField(const OpenAiField& field, const Json& value,
                                   const FieldContext& context);

}  // namespace muselet
