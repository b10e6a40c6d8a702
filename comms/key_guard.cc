#include "comms/key_guard.h"

#include <pthread.h>
#include <zmq.h>

#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace muselet {
namespace {

constexpr const char* kEndpoint = "inproc://zeromq.zap.01";
// ZMQ_ZAP_ENFORCE_DOMAIN, which zmq.h shows to builds with its draft interface only; the library
// has it in all builds since 4.3.0.
constexpr int kZapEnforceDomain = 93;
constexpr size_t kKeyBytes = 32;
constexpr int64_t kLogIntervalUs = 10'000'000;
// Of a request: version, id, domain, address, identity, mechanism, credentials.
constexpr size_t kFrames = 7;
enum Frame : size_t { kVersion, kId, kDomain, kAddress, kIdentity, kMechanism, kKey };

std::set<std::string> Decoded(const std::vector<std::string>& keys) {
  std::set<std::string> decoded;
  for (const std::string& key : keys) {
    std::string bytes(kKeyBytes, '\0');
    if (!IsWireKey(key)) continue;
    if (zmq_z85_decode(reinterpret_cast<uint8_t*>(bytes.data()), key.c_str()) != nullptr) {
      decoded.insert(std::move(bytes));
    }
  }
  return decoded;
}

}  // namespace

KeyGuard::KeyGuard(zmq::context_t& context, const WireSecurity& security)
    : members_(Decoded(security.members)), socket_(context, zmq::socket_type::rep) {
  members_.merge(Decoded({security.own.public_key}));
  front_ends_ = Decoded(security.front_ends);
  front_ends_.insert(members_.begin(), members_.end());
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind(kEndpoint);
  thread_ = std::thread([this] { Answer(); });
}

KeyGuard::~KeyGuard() {
  thread_.join();
}

void KeyGuard::Protect(zmq::socket_t& socket, const WireKeyPair& own, WireAudience audience) {
  socket.set(zmq::sockopt::curve_server, 1);
  socket.set(zmq::sockopt::curve_secretkey, own.secret_key);
  socket.set(zmq::sockopt::zap_domain, std::string(Domain(audience)));
  // Without it libzmq lets everyone in where nobody answers for the domain.
  const int enforce = 1;
  if (zmq_setsockopt(socket.handle(), kZapEnforceDomain, &enforce, sizeof(enforce)) != 0) {
    throw zmq::error_t();
  }
}

const char* KeyGuard::Domain(WireAudience audience) {
  return audience == WireAudience::kMembers ? "members" : "front-ends";
}

void KeyGuard::Answer() {
  pthread_setname_np(pthread_self(), "key-guard");
  Frames frames;
  while (Receive(frames)) {
    const bool admitted = Admits(frames);
    if (!admitted) NoteRefusal(frames);
    Reply(frames.size() > kId ? frames[kId] : "", admitted);
  }
  socket_.close();
}

// False when the context ends, and only then. Where a request cannot be read to its end, there are
// no frames: it is refused, which also brings the socket back to where it takes the next one.
bool KeyGuard::Receive(Frames& frames) {
  frames.clear();
  zmq::message_t frame;
  bool more = true;
  while (more) {
    if (zmq_msg_recv(frame.handle(), socket_.handle(), 0) < 0) {
      if (zmq_errno() == ETERM) return false;
      if (zmq_errno() == EINTR) continue;
      frames.clear();
      return true;
    }
    more = frame.more();
    // One too many is kept: such a request is not one of ours.
    if (frames.size() <= kFrames) frames.emplace_back(frame.data<char>(), frame.size());
  }
  return true;
}

bool KeyGuard::Admits(const Frames& frames) const {
  if (frames.size() != kFrames || frames[kVersion] != "1.0") return false;
  if (frames[kMechanism] != "CURVE" || frames[kKey].size() != kKeyBytes) return false;
  if (frames[kDomain] == Domain(WireAudience::kMembers)) return members_.contains(frames[kKey]);
  return frames[kDomain] == Domain(WireAudience::kFrontEnds) && front_ends_.contains(frames[kKey]);
}

void KeyGuard::NoteRefusal(const Frames& frames) {
  ++refused_;
  const int64_t now_us = Clock::Real().NowUs();
  if (logged_at_us_ != 0 && now_us - logged_at_us_ < kLogIntervalUs) return;
  logged_at_us_ = now_us;
  std::string key = "none";
  if (frames.size() == kFrames && frames[kKey].size() == kKeyBytes) {
    char text[kKeyBytes * 5 / 4 + 1];
    zmq_z85_encode(text, reinterpret_cast<const uint8_t*>(frames[kKey].data()), kKeyBytes);
    key = text;
  }
  LogWarn("refused a connection: its key is not known here (security.known_keys_file)",
          {{"from", frames.size() > kAddress ? frames[kAddress] : ""},
           {"asked_for", frames.size() > kDomain ? frames[kDomain] : ""},
           {"key", key},
           {"refused_so_far", refused_.load()}});
}

void KeyGuard::Reply(const std::string& request, bool admitted) {
  const std::string parts[] = {
      "1.0", request, admitted ? "200" : "400", admitted ? "" : "the key is not known here",
      "",    ""};
  constexpr size_t kParts = std::size(parts);
  for (size_t i = 0; i < kParts; ++i) {
    const int flags = i + 1 < kParts ? ZMQ_SNDMORE : 0;
    while (zmq_send(socket_.handle(), parts[i].data(), parts[i].size(), flags) < 0) {
      if (zmq_errno() != EINTR) return;
    }
  }
}

}  // namespace muselet
