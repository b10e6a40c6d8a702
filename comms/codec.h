// Envelopes as bytes: protobuf of comms/proto/wire.proto. The only parser of bytes that arrive from
// other processes; what it lets through is well-formed (known enums, bounded lists, present ids),
// not necessarily sensible: the protocol cores judge that.
//
// Stateless; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/messages.h"
#include "base/status.h"

namespace muselet {

// Appends nothing, throws nothing; strings that are not UTF-8 are refused by the receiver.
std::string EncodeEnvelope(const Envelope& envelope);

// kInvalidArgument naming the field for bytes that are larger than `bytes_max` (checked before they
// are parsed), are not a wire envelope, have another wire version, an enum out of range, a list or
// name over its limit, a negative token id, or lack an id.
Result<Envelope> DecodeEnvelope(std::string_view bytes, size_t bytes_max);

}  // namespace muselet
