// Field by field between base/messages.h and the generated classes of wire.proto: for comms/codec,
// and the parts that other wires share. ToWire fills an empty message; FromWire fills a
// default-made struct, or says which field is out of bounds.
#pragma once

#include <string>
#include <string_view>

#include "base/messages.h"
#include "base/status.h"
#include "wire.pb.h"

namespace muselet {

// Names and other short strings: at most 1 KiB.
Status CheckName(std::string_view value, std::string_view field);

void ToWire(const Hello& from, wire::v1::Hello& to);
void ToWire(const Welcome& from, wire::v1::Welcome& to);
void ToWire(const Goodbye& from, wire::v1::Goodbye& to);
void ToWire(const ModelTable& from, wire::v1::ModelTable& to);
void ToWire(const Place& from, wire::v1::Place& to);
void ToWire(const Ticket& from, wire::v1::Ticket& to);
void ToWire(const Refused& from, wire::v1::Refused& to);
void ToWire(const Lost& from, wire::v1::Lost& to);
void ToWire(const Release& from, wire::v1::Release& to);
void ToWire(const Submit& from, wire::v1::Submit& to);
void ToWire(const Cancel& from, wire::v1::Cancel& to);
void ToWire(const Tokens& from, wire::v1::Tokens& to);
void ToWire(const Report& from, wire::v1::Report& to);
void ToWire(const CacheEvents& from, wire::v1::CacheEvents& to);
void ToWire(const Drain& from, wire::v1::Drain& to);
void ToWire(const DrainAnswer& from, wire::v1::DrainAnswer& to);

Status FromWire(const wire::v1::Hello& from, Hello& to);
Status FromWire(const wire::v1::Welcome& from, Welcome& to);
Status FromWire(const wire::v1::Goodbye& from, Goodbye& to);
Status FromWire(const wire::v1::ModelTable& from, ModelTable& to);
Status FromWire(const wire::v1::Place& from, Place& to);
Status FromWire(const wire::v1::Ticket& from, Ticket& to);
Status FromWire(const wire::v1::Refused& from, Refused& to);
Status FromWire(const wire::v1::Lost& from, Lost& to);
Status FromWire(const wire::v1::Release& from, Release& to);
Status FromWire(const wire::v1::Submit& from, Submit& to);
Status FromWire(const wire::v1::Cancel& from, Cancel& to);
Status FromWire(const wire::v1::Tokens& from, Tokens& to);
Status FromWire(const wire::v1::Report& from, Report& to);
Status FromWire(const wire::v1::CacheEvents& from, CacheEvents& to);
Status FromWire(const wire::v1::Drain& from, Drain& to);
Status FromWire(const wire::v1::DrainAnswer& from, DrainAnswer& to);

// Shared with rank.proto. `field` is the name for faults.
void ToWire(const SampledToken& from, wire::v1::SampledToken& to);
void ToWire(const SamplingParams& from, wire::v1::SamplingParams& to);
void ToWire(const StopRules& from, wire::v1::StopRules& to);
Status FromWire(const wire::v1::SampledToken& from, std::string_view field, SampledToken& to);
Status FromWire(const wire::v1::SamplingParams& from, std::string_view field, SamplingParams& to);
Status FromWire(const wire::v1::StopRules& from, std::string_view field, StopRules& to);

}  // namespace muselet
