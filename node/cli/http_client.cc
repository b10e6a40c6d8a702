#include "node/cli/http_client.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <csignal>
#include <optional>
#include <set>

namespace muselet {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Endpoints = std::vector<asio::ip::tcp::endpoint>;

constexpr size_t kPieceBytes = 16 * 1024;

// One request and its answer.
class Exchange {
 public:
  Exchange(asio::io_context& io, HttpEvents events, std::function<void(Exchange*)> on_end)
      : stream_(io), events_(std::move(events)), on_end_(std::move(on_end)) {
    parser_.body_limit(boost::none);
  }

  void Start(const Endpoints& endpoints, const std::string& host, HttpRequest request,
             int64_t timeout_us) {
    request_.version(11);
    request_.method_string(request.method);
    request_.target(request.target);
    request_.set(http::field::host, host);
    request_.set(http::field::user_agent, "muselet");
    request_.set(http::field::connection, "close");
    for (const auto& [name, value] : request.headers) request_.set(name, value);
    if (!request.body.empty()) request_.set(http::field::content_type, "application/json");
    request_.body() = std::move(request.body);
    request_.prepare_payload();
    stream_.expires_after(std::chrono::microseconds(timeout_us));
    stream_.async_connect(endpoints, [this](beast::error_code fault, const auto&) {
      if (fault) return End("cannot connect", fault);
      stream_.socket().set_option(asio::ip::tcp::no_delay(true), fault);
      Write();
    });
  }

 private:
  void Write() {
    http::async_write(stream_, request_, [this](beast::error_code fault, size_t) {
      if (fault) return End("cannot send", fault);
      ReadHead();
    });
  }

  void ReadHead() {
    http::async_read_header(stream_, buffer_, parser_, [this](beast::error_code fault, size_t) {
      if (fault) return End("no answer", fault);
      if (events_.on_head) events_.on_head(static_cast<int>(parser_.get().result_int()));
      ReadBody();
    });
  }

  void ReadBody() {
    if (parser_.is_done()) return End("", {});
    parser_.get().body().data = piece_.data();
    parser_.get().body().size = piece_.size();
    http::async_read_some(stream_, buffer_, parser_, [this](beast::error_code fault, size_t) {
      const size_t length = piece_.size() - parser_.get().body().size;
      if (length > 0 && events_.on_body) events_.on_body({piece_.data(), length});
      if (fault && fault != http::error::need_buffer) return End("cut off", fault);
      ReadBody();
    });
  }

  // Destroys this exchange.
  void End(const std::string& what, beast::error_code fault) {
    Status status;
    if (fault == beast::error::timeout) {
      status = DeadlineExceeded("no complete answer in time");
    } else if (fault) {
      const std::string message = what + ": " + fault.message();
      status = what == "cannot connect" ? Unavailable(message) : DataLoss(message);
    }
    const auto on_done = std::move(events_.on_done);
    on_end_(this);
    if (on_done) on_done(status);
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, kPieceBytes> piece_{};
  HttpEvents events_;
  std::function<void(Exchange*)> on_end_;
};

class BeastClient final : public HttpClient {
 public:
  BeastClient(std::string host, Endpoints endpoints)
      : host_(std::move(host)), endpoints_(std::move(endpoints)) {}

  void Send(HttpRequest request, HttpEvents events, int64_t timeout_us) override {
    auto owned = std::make_unique<Exchange>(*io_, std::move(events),
                                            [this](Exchange* ended) { Erase(ended); });
    Exchange& exchange = *owned;
    exchanges_.insert(std::move(owned));
    exchange.Start(endpoints_, host_, std::move(request), timeout_us);
  }

  void After(int64_t delay_us, std::function<void()> callback) override {
    auto timer = std::make_shared<asio::steady_timer>(*io_, std::chrono::microseconds(delay_us));
    timer->async_wait([timer, callback = std::move(callback)](beast::error_code fault) {
      if (!fault) callback();
    });
  }

  void OnInterrupt(std::function<void()> callback) override {
    on_interrupt_ = std::move(callback);
    if (!signals_) signals_.emplace(*io_, SIGINT);
    signals_->async_wait([this](beast::error_code fault, int) {
      if (fault) return;
      const auto callback = on_interrupt_;
      OnInterrupt(callback);
      callback();
    });
  }

  void Run() override {
    io_->run();
    // A dropped exchange leaves handlers behind that point to it: they go with their context.
    exchanges_.clear();
    signals_.reset();
    io_.emplace();
  }

  void Finish() override { io_->stop(); }

 private:
  struct ByAddress {
    using is_transparent = void;
    using Owned = std::unique_ptr<Exchange>;
    bool operator()(const Owned& a, const Owned& b) const { return a.get() < b.get(); }
    bool operator()(const Owned& a, const Exchange* b) const { return a.get() < b; }
    bool operator()(const Exchange* a, const Owned& b) const { return a < b.get(); }
  };

  void Erase(Exchange* ended) {
    const auto found = exchanges_.find(ended);
    if (found != exchanges_.end()) exchanges_.erase(found);
  }

  std::string host_;
  Endpoints endpoints_;
  std::function<void()> on_interrupt_;
  std::optional<asio::io_context> io_{std::in_place};
  std::optional<asio::signal_set> signals_;
  std::set<std::unique_ptr<Exchange>, ByAddress> exchanges_;  // destroyed before their context
};

}  // namespace

Result<HttpUrl> ParseHttpUrl(std::string_view text) {
  constexpr std::string_view kHttp = "http://";
  const size_t scheme = text.find("://");
  if (scheme != std::string_view::npos && text.substr(0, kHttp.size()) != kHttp) {
    return InvalidArgument("only http:// URLs can be used, not " + std::string(text));
  }
  std::string_view rest = scheme == std::string_view::npos ? text : text.substr(kHttp.size());
  const size_t slash = rest.find('/');
  HttpUrl url;
  if (slash != std::string_view::npos) {
    url.path = std::string(rest.substr(slash));
    while (!url.path.empty() && url.path.back() == '/') url.path.pop_back();
    rest = rest.substr(0, slash);
  }
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string_view::npos && rest.find(']', colon) == rest.npos;
  url.port = has_port ? std::string(rest.substr(colon + 1)) : "80";
  if (has_port) rest = rest.substr(0, colon);
  if (rest.size() > 2 && rest.front() == '[' && rest.back() == ']') {
    rest = rest.substr(1, rest.size() - 2);
  }
  url.host = std::string(rest);
  const bool digits = url.port.find_first_not_of("0123456789") == std::string::npos;
  if (url.host.empty() || url.port.empty() || !digits || url.port.size() > 5) {
    return InvalidArgument("not a URL: " + std::string(text) + " (expected http://HOST:PORT)");
  }
  return url;
}

Result<std::unique_ptr<HttpClient>> HttpClient::Open(const HttpUrl& url) {
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  beast::error_code fault;
  Endpoints endpoints;
  for (const auto& found : resolver.resolve(url.host, url.port, fault)) {
    endpoints.push_back(found.endpoint());
  }
  if (fault || endpoints.empty()) return NotFound(url.host + ": " + fault.message());
  return std::unique_ptr<HttpClient>(
      std::make_unique<BeastClient>(url.host + ":" + url.port, std::move(endpoints)));
}

Result<HttpAnswer> Fetch(HttpClient& client, HttpRequest request, int64_t timeout_us) {
  constexpr size_t kBodyMax = 16 << 20;
  HttpAnswer answer;
  Status outcome = Cancelled("interrupted");
  HttpEvents events;
  events.on_head = [&](int status_code) { answer.status_code = status_code; };
  events.on_body = [&](std::string_view bytes) {
    if (answer.body.size() + bytes.size() <= kBodyMax) {
      answer.body += bytes;
      return;
    }
    outcome = ResourceExhausted("the answer is larger than 16 MiB");
    client.Finish();
  };
  events.on_done = [&](const Status& status) {
    outcome = status;
    client.Finish();
  };
  client.Send(std::move(request), std::move(events), timeout_us);
  client.Run();
  RETURN_IF_ERROR(outcome);
  return answer;
}

}  // namespace muselet
