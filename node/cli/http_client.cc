#include "node/cli/http_client.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <csignal>
#include <optional>
#include <set>

#include "node/cli/http_stream.h"

namespace muselet {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Endpoints = std::vector<asio::ip::tcp::endpoint>;

// Many servers end a TLS connection without saying so in TLS.
bool IsEnd(beast::error_code fault) {
  return fault == http::error::end_of_stream || fault == asio::ssl::error::stream_truncated;
}

// What a connection that the server has closed looks like.
bool IsClosed(beast::error_code fault) {
  return IsEnd(fault) || fault == asio::error::connection_reset ||
         fault == asio::error::broken_pipe;
}

constexpr size_t kPieceBytes = 16 * 1024;

// One request and its answer, on a connection that is new or was left open.
class Exchange {
 public:
  // `on_end` takes the connection back if it can be used again, nothing otherwise.
  using OnEnd = std::function<void(Exchange*, std::unique_ptr<HttpStream> reusable)>;

  Exchange(HttpEvents events, OnEnd on_end)
      : events_(std::move(events)), on_end_(std::move(on_end)) {
    parser_.emplace();
    parser_->body_limit(boost::none);
  }

  void SetRequest(const std::string& host, HttpRequest request, int64_t timeout_us) {
    request_.version(11);
    request_.method_string(request.method);
    request_.target(request.target);
    request_.set(http::field::host, host);
    request_.set(http::field::user_agent, "muselet");
    for (const auto& [name, value] : request.headers) request_.set(name, value);
    if (!request.body.empty()) request_.set(http::field::content_type, "application/json");
    request_.body() = std::move(request.body);
    request_.prepare_payload();
    deadline_ = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_us);
  }

  // Sends over `stream`, which is open if `reused`; `renew` makes another one, for an open
  // connection that turns out to have been closed by the server.
  void Start(std::unique_ptr<HttpStream> stream, bool reused,
             std::function<std::unique_ptr<HttpStream>()> renew) {
    stream_ = std::move(stream);
    renew_ = std::move(renew);
    reused_ = reused;
    stream_->ExpireAt(deadline_);
    if (reused) return Write();
    Connect();
  }

 private:
  void Connect() {
    stream_->AsyncConnect([this](const Status& status, beast::error_code fault) {
      if (!status.ok()) return Finish(fault == beast::error::timeout ? TooLate() : status, false);
      Write();
    });
  }

  void Write() {
    http::async_write(*stream_, request_, [this](beast::error_code fault, size_t) {
      // A server may answer (413, 503) and close before it has read the whole request.
      if (fault == beast::error::timeout) return Broken("cannot send", fault);
      unsent_ = fault;
      ReadHead();
    });
  }

  void ReadHead() {
    http::async_read_header(*stream_, buffer_, *parser_, [this](beast::error_code fault, size_t) {
      if (fault && unsent_ && !parser_->got_some()) return Broken("cannot send", unsent_);
      if (fault) return Broken("no answer", fault);
      if (events_.on_head) events_.on_head(static_cast<int>(parser_->get().result_int()));
      ReadBody();
    });
  }

  void ReadBody() {
    if (parser_->is_done()) return Finish(OkStatus(), parser_->keep_alive() && !unsent_);
    parser_->get().body().data = piece_.data();
    parser_->get().body().size = piece_.size();
    http::async_read_some(*stream_, buffer_, *parser_, [this](beast::error_code fault, size_t) {
      const size_t length = piece_.size() - parser_->get().body().size;
      if (length > 0 && events_.on_body) events_.on_body({piece_.data(), length});
      if (IsEnd(fault) && parser_->need_eof()) parser_->put_eof(fault);
      if (fault && fault != http::error::need_buffer) return Broken("cut off", fault);
      ReadBody();
    });
  }

  // A server may close a connection that nobody uses, just as a request is sent over it: then not a
  // byte comes back, and the request goes over a new one. After any other fault it may have been
  // worked on.
  void Broken(const std::string& what, beast::error_code fault) {
    if (fault == beast::error::timeout) return Finish(TooLate(), false);
    if (!reused_ || parser_->got_some() || !IsClosed(fault))
      return Finish(DataLoss(what + ": " + fault.message()), false);
    reused_ = false;
    unsent_ = {};
    buffer_.clear();
    stream_ = renew_();
    stream_->ExpireAt(deadline_);
    Connect();
  }

  static Status TooLate() { return DeadlineExceeded("no complete answer in time"); }

  // Destroys this exchange.
  void Finish(const Status& status, bool reusable) {
    const auto on_done = std::move(events_.on_done);
    const OnEnd on_end = std::move(on_end_);
    on_end(this, reusable ? std::move(stream_) : nullptr);
    if (on_done) on_done(status);
  }

  std::unique_ptr<HttpStream> stream_;
  std::function<std::unique_ptr<HttpStream>()> renew_;
  bool reused_ = false;
  beast::error_code unsent_;  // why the request could not be sent whole
  std::chrono::steady_clock::time_point deadline_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::array<char, kPieceBytes> piece_{};
  HttpEvents events_;
  OnEnd on_end_;
};

class BeastClient final : public HttpClient {
 public:
  BeastClient(const HttpUrl& url, Endpoints endpoints, std::shared_ptr<TlsClient> tls)
      : host_header_(HostHeader(url)), endpoints_(std::move(endpoints)), tls_(std::move(tls)) {}

  void Send(HttpRequest request, HttpEvents events, int64_t timeout_us) override {
    auto owned = std::make_unique<Exchange>(
        std::move(events), [this](Exchange* ended, std::unique_ptr<HttpStream> reusable) {
          if (reusable) idle_.push_back(std::move(reusable));
          Erase(ended);
        });
    Exchange& exchange = *owned;
    exchanges_.insert(std::move(owned));
    exchange.SetRequest(host_header_, std::move(request), timeout_us);
    std::unique_ptr<HttpStream> stream;
    if (!idle_.empty()) {
      stream = std::move(idle_.back());
      idle_.pop_back();
    }
    const bool reused = stream != nullptr;
    exchange.Start(reused ? std::move(stream) : NewStream(), reused,
                   [this] { return NewStream(); });
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
    idle_.clear();
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

  static std::string HostHeader(const HttpUrl& url) {
    const bool six = url.host.find(':') != std::string::npos;
    return (six ? "[" + url.host + "]" : url.host) + ":" + url.port;
  }

  std::unique_ptr<HttpStream> NewStream() {
    return std::make_unique<HttpStream>(*io_, endpoints_, tls_);
  }

  std::string host_header_;
  Endpoints endpoints_;
  std::shared_ptr<TlsClient> tls_;  // null = plain
  std::function<void()> on_interrupt_;
  std::optional<asio::io_context> io_{std::in_place};
  std::optional<asio::signal_set> signals_;
  // Destroyed before their context.
  std::vector<std::unique_ptr<HttpStream>> idle_;
  std::set<std::unique_ptr<Exchange>, ByAddress> exchanges_;
};

}  // namespace

Result<HttpUrl> ParseHttpUrl(std::string_view text) {
  HttpUrl url;
  std::string_view rest = text;
  if (const size_t scheme = text.find("://"); scheme != std::string_view::npos) {
    const std::string_view name = text.substr(0, scheme);
    if (name != "http" && name != "https") {
      return InvalidArgument("only http:// and https:// URLs can be used, not " +
                             std::string(text));
    }
    url.tls = name == "https";
    rest = text.substr(scheme + 3);
  }
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    url.path = std::string(rest.substr(slash));
    while (!url.path.empty() && url.path.back() == '/') url.path.pop_back();
    rest = rest.substr(0, slash);
  }
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string_view::npos && rest.find(']', colon) == rest.npos;
  url.port = has_port ? std::string(rest.substr(colon + 1)) : url.tls ? "443" : "80";
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

Result<std::unique_ptr<HttpClient>> HttpClient::Open(const HttpUrl& url, const TlsTrust& trust) {
  std::shared_ptr<TlsClient> tls;
  if (url.tls) {
    ASSIGN_OR_RETURN(tls, TlsClient::Create(url.host, trust));
  }
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  beast::error_code fault;
  Endpoints endpoints;
  for (const auto& found : resolver.resolve(url.host, url.port, fault)) {
    endpoints.push_back(found.endpoint());
  }
  if (fault || endpoints.empty()) return NotFound(url.host + ": " + fault.message());
  return std::unique_ptr<HttpClient>(
      std::make_unique<BeastClient>(url, std::move(endpoints), std::move(tls)));
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
