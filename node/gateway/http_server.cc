#include "node/gateway/http_server.h"

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "node/gateway/http_address.h"
#include "node/gateway/http_connection.h"

namespace muselet {
namespace {

using Tcp = boost::asio::ip::tcp;

// Connections over the limit are told so; no more than this many at once.
constexpr size_t kRefusalsMax = 64;
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);

std::string AddressOf(const Tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  const std::string port = std::to_string(endpoint.port());
  return endpoint.address().is_v6() ? "[" + host + "]:" + port : host + ":" + port;
}

// The tightest time limit decides how often the connections are looked at.
int64_t TickIntervalUs(const HttpLimits& limits) {
  const int64_t least =
      std::min({limits.header_timeout_us, limits.body_timeout_us, limits.idle_timeout_us,
                limits.write_timeout_us, limits.keep_alive_interval_us});
  return std::clamp<int64_t>(least / 4, 5'000, 250'000);
}

Status ListenFault(const boost::system::error_code& error, const HttpServerOptions& options) {
  namespace errc = boost::system::errc;
  const std::string& address = options.address;
  const std::string choose = ": choose another with " + options.address_option;
  if (error == errc::address_in_use) return Unavailable(address + " is in use" + choose);
  if (error == errc::permission_denied)
    return PermissionDenied("no permission to listen on " + address +
                            " (ports below 1024 need root or CAP_NET_BIND_SERVICE)" + choose);
  if (error == errc::address_not_available)
    return InvalidArgument("this machine has no address " + address + choose);
  return Unavailable("cannot listen on " + address + " (" + error.message() + ")" + choose);
}

Result<Tcp::endpoint> Resolve(const HttpServerOptions& options, boost::asio::io_context& io) {
  ASSIGN_OR_RETURN(const HttpAddress address,
                   ParseHttpAddress(options.address, options.address_option));
  boost::system::error_code error;
  const auto ip = boost::asio::ip::make_address(address.host, error);
  if (!error) return Tcp::endpoint(ip, address.port);
  Tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(address.host, std::to_string(address.port), Tcp::resolver::passive, error);
  if (error || found.empty())
    return InvalidArgument("host \"" + address.host + "\" is not known: choose another with " +
                           options.address_option);
  return found.begin()->endpoint();
}

}  // namespace

class HttpServer::Core final : public HttpConnectionHost,
                               public std::enable_shared_from_this<HttpServer::Core> {
 public:
  Core(HttpServerOptions options, HttpRoutes routes, EventLoop& loop)
      : options_(std::move(options)),
        routes_(std::move(routes)),
        loop_(loop),
        acceptor_(loop.io()),
        accept_retry_(loop.io()) {}

  Status Listen();
  void Begin();
  void Stop();
  void Drain(std::function<void()> drained);

  const std::string& address() const { return address_; }
  size_t connections() const { return connections_.size(); }

  const HttpServerOptions& options() const override { return options_; }
  const HttpRoutes& routes() const override { return routes_; }
  int64_t NowUs() const override { return loop_.NowUs(); }
  const std::string& Date() override;
  bool draining() const override { return draining_; }
  void Post(std::function<void()> work) override { loop_.Post(std::move(work)); }
  void OnResponded(int status) override {
    if (options_.responded) options_.responded(status);
  }
  // Later: the connection is in the middle of its bookkeeping.
  void OnLingering() override {
    if (draining_) loop_.Post([self = shared_from_this()] { self->FinishDrain(); });
  }
  void OnClosed(HttpConnection* connection) override;

 private:
  void Accept();
  void OnAccepted(Tcp::socket socket);
  void OnAcceptFault(const boost::system::error_code& error);
  void Tick();
  void FinishDrain();
  std::vector<std::shared_ptr<HttpConnection>> Everyone() const;

  HttpServerOptions options_;
  HttpRoutes routes_;
  EventLoop& loop_;
  Tcp::acceptor acceptor_;
  boost::asio::steady_timer accept_retry_;
  std::unique_ptr<PeriodicTimer> tick_;
  std::string address_;
  int64_t date_unix_s_ = -1;  // of date_
  std::string date_;
  std::unordered_map<HttpConnection*, std::shared_ptr<HttpConnection>> connections_;
  bool draining_ = false;
  // Connections that were busy when draining began and still are: what comes later is refused, and
  // must not hold up the end.
  std::unordered_set<const HttpConnection*> owing_;
  bool stopped_ = false;
  std::function<void()> drained_;
};

Status HttpServer::Core::Listen() {
  ASSIGN_OR_RETURN(const Tcp::endpoint endpoint, Resolve(options_, loop_.io()));
  boost::system::error_code error;
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error) return ListenFault(error, options_);
  const Tcp::endpoint bound = acceptor_.local_endpoint(error);
  if (error) return ListenFault(error, options_);
  address_ = AddressOf(bound);
  return OkStatus();
}

void HttpServer::Core::Begin() {
  tick_ =
      std::make_unique<PeriodicTimer>(loop_, TickIntervalUs(options_.limits), [this] { Tick(); });
  Accept();
}

void HttpServer::Core::Accept() {
  acceptor_.async_accept(
      [self = shared_from_this()](const boost::system::error_code& error, Tcp::socket socket) {
        if (self->stopped_ || !self->acceptor_.is_open()) return;
        if (error) return self->OnAcceptFault(error);
        self->OnAccepted(std::move(socket));
        self->Accept();
      });
}

// Out of descriptors, most likely: trying again at once would spin.
void HttpServer::Core::OnAcceptFault(const boost::system::error_code& error) {
  LogWarn("cannot accept a connection", {{"address", address_}, {"error", error.message()}});
  accept_retry_.expires_after(kAcceptRetry);
  accept_retry_.async_wait([self = shared_from_this()](const boost::system::error_code& cancelled) {
    if (!cancelled && !self->stopped_ && self->acceptor_.is_open()) self->Accept();
  });
}

void HttpServer::Core::OnAccepted(Tcp::socket socket) {
  const size_t limit = options_.limits.connections_max;
  if (connections_.size() >= limit + kRefusalsMax) return;
  boost::system::error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  socket.non_blocking(true, ignored);
  const bool full = connections_.size() >= limit;
  auto connection = std::make_shared<HttpConnection>(std::move(socket), shared_from_this());
  connections_.emplace(connection.get(), connection);
  if (options_.connections_changed) options_.connections_changed(connections_.size());
  if (full) {
    connection->Refuse();
  } else {
    connection->Start();
  }
}

std::vector<std::shared_ptr<HttpConnection>> HttpServer::Core::Everyone() const {
  std::vector<std::shared_ptr<HttpConnection>> everyone;
  everyone.reserve(connections_.size());
  for (const auto& [key, connection] : connections_) everyone.push_back(connection);
  return everyone;
}

const std::string& HttpServer::Core::Date() {
  const int64_t unix_s = Clock::Real().UnixUs() / 1'000'000;
  if (unix_s != date_unix_s_) {
    date_unix_s_ = unix_s;
    date_ = HttpDate(unix_s);
  }
  return date_;
}

void HttpServer::Core::Tick() {
  const int64_t now_us = loop_.NowUs();
  for (const auto& connection : Everyone()) connection->Tick(now_us);
}

void HttpServer::Core::OnClosed(HttpConnection* connection) {
  owing_.erase(connection);
  if (connections_.erase(connection) == 0) return;
  if (options_.connections_changed) options_.connections_changed(connections_.size());
  if (draining_) FinishDrain();
}

void HttpServer::Core::Drain(std::function<void()> drained) {
  draining_ = true;
  drained_ = std::move(drained);
  for (const auto& [raw, connection] : connections_) owing_.insert(raw);
  FinishDrain();
}

void HttpServer::Core::FinishDrain() {
  std::erase_if(owing_, [](const HttpConnection* connection) { return !connection->Busy(); });
  if (!drained_ || !owing_.empty()) return;
  loop_.Post(std::exchange(drained_, nullptr));
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  accept_retry_.cancel();
  for (const auto& connection : Everyone()) connection->Close();
}

void HttpServer::Core::Stop() {
  stopped_ = true;
  tick_.reset();
  drained_ = nullptr;
  options_.connections_changed = nullptr;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  accept_retry_.cancel();
  for (const auto& connection : Everyone()) connection->Close();
}

HttpServer::HttpServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

HttpServer::~HttpServer() {
  core_->Stop();
}

Result<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options, HttpRoutes routes,
                                                      EventLoop& loop) {
  auto core = std::make_shared<Core>(std::move(options), std::move(routes), loop);
  RETURN_IF_ERROR(core->Listen());
  core->Begin();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

const std::string& HttpServer::address() const {
  return core_->address();
}
size_t HttpServer::connections() const {
  return core_->connections();
}
void HttpServer::Drain(std::function<void()> drained) {
  core_->Drain(std::move(drained));
}

}  // namespace muselet
