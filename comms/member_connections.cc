#include "comms/member_connections.h"

#include <netdb.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>

#include "base/clock.h"

namespace muselet {
namespace {

constexpr size_t kTokenBytes = 16;
constexpr std::array<char, 8> kGreeting = {'m', 'u', 's', 'e', 'l', 'e', 't', 1};
// Greeting, member number, token.
constexpr size_t kHelloBytes = kGreeting.size() + sizeof(uint32_t) + kTokenBytes;
constexpr size_t kUnknownMax = 64;        // connections of which it is not known whose they are
constexpr int64_t kHelloUs = 5'000'000;   // to say who it is
constexpr int64_t kRetryUs = 50'000;      // after a connection that came to nothing
constexpr int64_t kEndedPollUs = 50'000;  // between looks whether the epoch is over
constexpr int kWaitingMax = 128;          // connections that the system holds for us

// A descriptor with one owner.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int number) : number_(number) {}
  Socket(Socket&& other) noexcept : number_(other.Release()) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this == &other) return *this;
    if (number_ >= 0) close(number_);
    number_ = other.Release();
    return *this;
  }
  ~Socket() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }
  bool open() const { return number_ >= 0; }
  int Release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Socket NewSocket(int family) {
  return Socket(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// A socket that listens on the host's address, on a port that the system chooses.
Result<Socket> Listen(const std::string& host, Address& address) {
  const auto fault = [&](const std::string& why) {
    return Unavailable("cannot listen on " + host + " (is it an address of this machine?): " + why);
  };
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found); code != 0) {
    return fault(gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  std::string why = "it has no address";
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    Socket listener = NewSocket(each->ai_family);
    address.size = sizeof(address.storage);
    if (listener.open() && bind(listener.number(), each->ai_addr, each->ai_addrlen) == 0 &&
        listen(listener.number(), kWaitingMax) == 0 &&
        getsockname(listener.number(), reinterpret_cast<sockaddr*>(&address.storage),
                    &address.size) == 0) {
      return listener;
    }
    why = std::strerror(errno);
  }
  return fault(why);
}

// What the two members of a pair know of each other, and nobody else.
struct PairSecret {
  std::string hello, answer;  // tokens: of the higher member, of the lower one
  Address address;            // of the lower one
};

Result<std::string> DrawTokens() {
  std::string tokens(2 * kTokenBytes, '\0');
  if (getrandom(tokens.data(), tokens.size(), 0) != static_cast<ssize_t>(tokens.size())) {
    return Unavailable("getrandom gives nothing");
  }
  return tokens;
}

std::string ValueOf(const PairSecret& secret) {
  return secret.hello + secret.answer +
         std::string(reinterpret_cast<const char*>(&secret.address.storage), secret.address.size);
}

bool ParseValue(const std::string& value, PairSecret& secret) {
  const size_t address_bytes = value.size() - std::min(value.size(), 2 * kTokenBytes);
  if (address_bytes < sizeof(sa_family_t) || address_bytes > sizeof(sockaddr_storage)) return false;
  secret.hello = value.substr(0, kTokenBytes);
  secret.answer = value.substr(kTokenBytes, kTokenBytes);
  std::memcpy(&secret.address.storage, value.data() + 2 * kTokenBytes, address_bytes);
  secret.address.size = static_cast<socklen_t>(address_bytes);
  return true;
}

std::string HelloOf(uint32_t member, const std::string& token) {
  std::string hello(kGreeting.begin(), kGreeting.end());
  hello.append(reinterpret_cast<const char*>(&member), sizeof(member));
  return hello + token;
}

// Into a buffer that is empty: all of it or nothing.
bool SendAll(int socket, const std::string& bytes) {
  return send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

// Reads towards `wanted` bytes, and none beyond. False: the connection is over.
bool ReadTowards(int socket, size_t wanted, std::string& bytes) {
  std::array<char, kHelloBytes> buffer;
  const ssize_t got = recv(socket, buffer.data(), wanted - bytes.size(), 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  bytes.append(buffer.data(), static_cast<size_t>(got));
  return got > 0;
}

}  // namespace

class ConnectionVetting {
 public:
  ConnectionVetting(const RankGroupSpec& spec, RankRendezvous& rendezvous)
      : spec_(spec), rendezvous_(rendezvous), secrets_(spec.size), vetted_(spec.size) {}

  Status Begin(const std::string& host);
  Status Run();
  MemberConnections Take();

 private:
  // Somebody who has connected here and has not said who it is.
  struct Unknown {
    Socket socket;
    int64_t until_us = 0;
    std::string hello;
  };
  // The own connection to a lower member, until it has answered.
  struct Outgoing {
    uint32_t member = 0;
    Socket socket;
    bool said_hello = false;
    std::string answer;
    int64_t retry_us = 0;
  };

  std::string Key(uint32_t low, uint32_t high) const {
    return spec_.name + "/gloo/" + std::to_string(low) + "-" + std::to_string(high);
  }
  std::vector<pollfd> Watched() const;
  void Accept(int64_t now_us);
  bool HearUnknown(Unknown& unknown);
  void BeginConnecting(Outgoing& outgoing, int64_t now_us);
  bool GoOn(Outgoing& outgoing);
  std::string Missing() const;

  const RankGroupSpec& spec_;
  RankRendezvous& rendezvous_;
  Socket listener_;
  std::vector<PairSecret> secrets_;  // by member
  std::vector<Socket> vetted_;       // by member
  std::deque<Unknown> unknown_;      // oldest first
  std::vector<Outgoing> outgoing_;
};

Status ConnectionVetting::Begin(const std::string& host) {
  Address own;
  // Also where nobody is to connect: that an address is wrong shows on each member at once.
  ASSIGN_OR_RETURN(listener_, Listen(host, own));
  for (uint32_t member = spec_.rank + 1; member < spec_.size; ++member) {
    ASSIGN_OR_RETURN(const std::string tokens, DrawTokens());
    secrets_[member] = {tokens.substr(0, kTokenBytes), tokens.substr(kTokenBytes), own};
    RETURN_IF_ERROR(rendezvous_.Put(Key(spec_.rank, member), ValueOf(secrets_[member])));
  }
  if (spec_.rank + 1 == spec_.size) listener_ = Socket();
  for (uint32_t member = 0; member < spec_.rank; ++member) {
    const std::string name = "member " + std::to_string(member);
    const auto value = rendezvous_.Get(Key(member, spec_.rank), spec_.deadline_us);
    if (!value.ok()) return value.status().WithContext(name + " is missing");
    if (!ParseValue(*value, secrets_[member])) return Unavailable(name + " gave no address");
    outgoing_.emplace_back().member = member;
  }
  return OkStatus();
}

Status ConnectionVetting::Run() {
  while (true) {
    if (Missing().empty()) return OkStatus();
    RETURN_IF_ERROR(rendezvous_.ended());
    int64_t now_us = Clock::Real().NowUs();
    if (now_us >= spec_.deadline_us)
      return DeadlineExceeded(Missing() + " did not connect in time");
    for (Outgoing& outgoing : outgoing_) {
      if (!outgoing.socket.open() && now_us >= outgoing.retry_us) BeginConnecting(outgoing, now_us);
    }
    std::vector<pollfd> watched = Watched();
    const int64_t wait_us = std::min(kEndedPollUs, spec_.deadline_us - now_us);
    if (poll(watched.data(), watched.size(), static_cast<int>((wait_us + 999) / 1000)) < 0 &&
        errno != EINTR) {
      return Unavailable(std::string("poll: ") + std::strerror(errno));
    }
    now_us = Clock::Real().NowUs();
    std::erase_if(unknown_, [&](Unknown& unknown) {
      return HearUnknown(unknown) || now_us >= unknown.until_us;
    });
    std::erase_if(outgoing_, [&](Outgoing& outgoing) {
      if (!outgoing.socket.open()) return false;
      if (GoOn(outgoing)) return true;
      if (!outgoing.socket.open()) outgoing.retry_us = now_us + kRetryUs;
      return false;
    });
    if (listener_.open()) Accept(now_us);
  }
}

std::vector<pollfd> ConnectionVetting::Watched() const {
  std::vector<pollfd> watched;
  if (listener_.open()) watched.push_back({listener_.number(), POLLIN, 0});
  for (const Unknown& unknown : unknown_) watched.push_back({unknown.socket.number(), POLLIN, 0});
  for (const Outgoing& outgoing : outgoing_) {
    if (!outgoing.socket.open()) continue;
    const int16_t events = outgoing.said_hello ? POLLIN : POLLOUT;
    watched.push_back({outgoing.socket.number(), events, 0});
  }
  return watched;
}

void ConnectionVetting::Accept(int64_t now_us) {
  for (size_t i = 0; i < kUnknownMax; ++i) {
    Socket socket(accept4(listener_.number(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.open()) return;
    Unknown unknown = {std::move(socket), now_us + kHelloUs, ""};
    // A member speaks at once, and is not to be crowded out by those who do not.
    if (HearUnknown(unknown)) continue;
    if (unknown_.size() == kUnknownMax) unknown_.pop_front();
    unknown_.push_back(std::move(unknown));
  }
}

// True when it need not be heard any more: it is known, or it is a stranger.
bool ConnectionVetting::HearUnknown(Unknown& unknown) {
  if (!ReadTowards(unknown.socket.number(), kHelloBytes, unknown.hello)) return true;
  const std::string& said = unknown.hello;
  const size_t greeted = std::min(said.size(), kGreeting.size());
  if (!std::equal(said.begin(), said.begin() + static_cast<std::ptrdiff_t>(greeted),
                  kGreeting.begin())) {
    return true;
  }
  if (said.size() < kHelloBytes) return false;
  uint32_t member = 0;
  std::memcpy(&member, said.data() + kGreeting.size(), sizeof(member));
  if (member <= spec_.rank || member >= spec_.size) return true;
  const PairSecret& secret = secrets_[member];
  if (said != HelloOf(member, secret.hello)) return true;
  // A second one is the same member, whose first connection broke before it had our answer.
  if (SendAll(unknown.socket.number(), secret.answer)) vetted_[member] = std::move(unknown.socket);
  return true;
}

void ConnectionVetting::BeginConnecting(Outgoing& outgoing, int64_t now_us) {
  const Address& address = secrets_[outgoing.member].address;
  outgoing.said_hello = false;
  outgoing.answer.clear();
  outgoing.socket = NewSocket(address.storage.ss_family);
  const bool begun =
      outgoing.socket.open() &&
      (connect(outgoing.socket.number(), address.get(), address.size) == 0 || errno == EINPROGRESS);
  if (begun) return;
  outgoing.socket = Socket();
  outgoing.retry_us = now_us + kRetryUs;
}

// True when that member has answered. Without a socket after it the connection came to nothing.
bool ConnectionVetting::GoOn(Outgoing& outgoing) {
  const int socket = outgoing.socket.number();
  const PairSecret& secret = secrets_[outgoing.member];
  if (!outgoing.said_hello) {
    pollfd ready = {socket, POLLOUT, 0};
    if (poll(&ready, 1, 0) == 0) return false;
    outgoing.said_hello = SendAll(socket, HelloOf(spec_.rank, secret.hello));
    if (!outgoing.said_hello) outgoing.socket = Socket();
    return false;
  }
  const bool goes_on = ReadTowards(socket, kTokenBytes, outgoing.answer);
  const bool complete = outgoing.answer.size() == kTokenBytes;
  if (complete && outgoing.answer == secret.answer) {
    vetted_[outgoing.member] = std::move(outgoing.socket);
    return true;
  }
  if (!goes_on || complete) outgoing.socket = Socket();
  return false;
}

std::string ConnectionVetting::Missing() const {
  std::string missing;
  for (uint32_t member = 0; member < spec_.size; ++member) {
    if (member == spec_.rank || vetted_[member].open()) continue;
    missing += (missing.empty() ? "member " : ", member ") + std::to_string(member);
  }
  return missing;
}

MemberConnections ConnectionVetting::Take() {
  MemberConnections connections;
  for (Socket& socket : vetted_) connections.sockets_.push_back(socket.Release());
  return connections;
}

MemberConnections::~MemberConnections() {
  for (const int socket : sockets_) {
    if (socket >= 0) close(socket);
  }
}

Result<MemberConnections> MemberConnections::Make(const RankGroupSpec& spec,
                                                  const std::string& host,
                                                  RankRendezvous& rendezvous) {
  ConnectionVetting vetting(spec, rendezvous);
  RETURN_IF_ERROR(vetting.Begin(host));
  RETURN_IF_ERROR(vetting.Run());
  return vetting.Take();
}

int MemberConnections::Release(uint32_t member) {
  return std::exchange(sockets_[member], -1);
}

}  // namespace muselet
