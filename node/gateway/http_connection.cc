#include "node/gateway/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <charconv>

#include "base/types.h"

namespace muselet {
namespace {

constexpr size_t kPipelineBytesMax = 64 * 1024;    // of later requests, read while one is answered
constexpr size_t kWriteProgressBytes = 64 * 1024;  // at least this much within write_timeout_us
constexpr int64_t kLingerUs = 2'000'000;
constexpr size_t kBufferKeptBytes = 64 * 1024;

}  // namespace

HttpExchange::HttpExchange(std::weak_ptr<HttpConnection> connection, uint64_t serial)
    : connection_(std::move(connection)), serial_(serial) {}

HttpExchange::~HttpExchange() {
  if (answered_) return;
  if (const auto connection = connection_.lock()) {
    if (connection->HeadSent(serial_)) {
      connection->End(serial_);
    } else {
      connection->Respond(serial_, HttpError(500, "the request was dropped without an answer"));
    }
  }
}

void HttpExchange::Respond(HttpResponse response) {
  answered_ = true;
  if (const auto connection = connection_.lock()) connection->Respond(serial_, std::move(response));
}

void HttpExchange::BeginStream(HttpStreamHead head) {
  if (const auto connection = connection_.lock()) connection->BeginStream(serial_, std::move(head));
}

bool HttpExchange::head_sent() const {
  const auto connection = connection_.lock();
  return connection != nullptr && connection->HeadSent(serial_);
}

void HttpExchange::Write(std::string_view bytes) {
  if (const auto connection = connection_.lock()) connection->Write(serial_, bytes);
}

void HttpExchange::End() {
  answered_ = true;
  if (const auto connection = connection_.lock()) connection->End(serial_);
}

void HttpExchange::OnAbandoned(std::function<void()> callback) {
  if (const auto connection = connection_.lock())
    connection->OnAbandoned(serial_, std::move(callback));
}

HttpConnection::HttpConnection(boost::asio::ip::tcp::socket socket,
                               std::shared_ptr<HttpConnectionHost> host)
    : socket_(std::move(socket)), host_(std::move(host)) {}

void HttpConnection::Start() {
  parser_.emplace(HttpParser::Limits{limits().header_bytes_max, limits().body_bytes_max});
  deadline_us_ = host_->NowUs() + limits().header_timeout_us;
  Read();
}

void HttpConnection::Refuse() {
  phase_ = Phase::kAnswering;
  HttpResponse response = HttpError(503, "the server has as many connections as it may have");
  response.headers.emplace_back("Retry-After", "1");
  Finish(std::move(response));
  Read();
}

void HttpConnection::Read() {
  socket_.async_read_some(
      boost::asio::buffer(read_buffer_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t count) {
        if (self->phase_ == Phase::kClosed) return;
        if (error) return self->OnPeerClosed();
        self->OnRead(count);
      });
}

// An answer that is complete still goes out to a client that only said that it will send no more.
void HttpConnection::OnPeerClosed() {
  if (phase_ != Phase::kFlushing) return Close();
  peer_closed_ = true;
  keep_alive_ = false;
}

void HttpConnection::OnRead(size_t count) {
  if (phase_ != Phase::kLingering) in_.append(read_buffer_.data(), count);
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kReading;
    deadline_us_ = host_->NowUs() + limits().header_timeout_us;
  }
  if (phase_ == Phase::kReading) Advance();
  if (phase_ == Phase::kClosed) return;
  if (in_.size() > kPipelineBytesMax) {
    read_paused_ = true;
    return;
  }
  Read();
}

void HttpConnection::Advance() {
  while (phase_ == Phase::kReading) {
    const size_t used = parser_->Feed(in_);
    in_.erase(0, used);
    if (parser_->state() == HttpParser::State::kFault)
      return Fault(parser_->fault_status(), parser_->fault_message());
    if (parser_->state() != HttpParser::State::kHeader && !header_seen_) {
      header_seen_ = true;
      if (!OnHeader()) return;
      continue;  // a request without a body is done without further bytes
    }
    if (parser_->state() == HttpParser::State::kDone) return Dispatch();
    if (used == 0 || in_.empty()) break;
  }
  if (header_seen_ && parser_->expects_continue() && !continue_sent_) {
    continue_sent_ = true;
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    ScheduleFlush();
  }
}

// Refuses before the body is read, so that strangers cost a header only.
bool HttpConnection::OnHeader() {
  HttpRequest& request = parser_->request();
  ++serial_;
  request_id_ = request.id;
  http11_ = parser_->http11();
  head_only_ = request.method == "HEAD";
  keep_alive_ = parser_->keep_alive() && !parser_->has_body();  // in case it is refused unread
  HttpRoutes::Match match = host_->routes().Find(request.method, request.path);
  if (match.route == nullptr) {
    phase_ = Phase::kAnswering;
    HttpResponse response;
    if (request.method == "OPTIONS" && (request.path == "*" || !match.allowed.empty())) {
      response.status = 204;
      response.content_type.clear();
      response.headers.emplace_back(
          "Allow", match.allowed.empty() ? "GET, HEAD, POST, OPTIONS" : match.allowed);
    } else if (match.allowed.empty()) {
      response = HttpError(404, "no such route: " + request.method + " " + request.path);
    } else {
      response = HttpError(405, request.path + " does not know the method " + request.method);
      response.headers.emplace_back("Allow", match.allowed);
    }
    Finish(std::move(response));
    return false;
  }
  route_ = match.route;
  request.parameter = std::move(match.parameter);
  if (!route_->open) {
    std::optional<HttpResponse> refusal = HttpError(403, "this route is closed");
    if (host_->options().authorize) refusal = host_->options().authorize(request);
    if (refusal.has_value()) {
      phase_ = Phase::kAnswering;
      Finish(std::move(*refusal));
      return false;
    }
  }
  deadline_us_ = host_->NowUs() + limits().body_timeout_us;
  return true;
}

void HttpConnection::Dispatch() {
  phase_ = Phase::kAnswering;
  keep_alive_ = parser_->keep_alive() && !host_->draining();
  stream_.reset();
  head_sent_ = false;
  abandoned_ = nullptr;
  route_->handler(parser_->request(), std::make_shared<HttpExchange>(weak_from_this(), serial_));
}

void HttpConnection::Fault(int status, const std::string& message) {
  phase_ = Phase::kAnswering;
  ++serial_;
  if (!header_seen_) request_id_ = parser_->request().id;
  keep_alive_ = false;
  head_only_ = false;
  Finish(HttpError(status, message));
}

void HttpConnection::SendHead(int status, std::string_view content_type, HttpHeaders headers,
                              std::optional<size_t> content_bytes) {
  if (content_bytes.has_value()) {
    if (status != 204) headers.emplace_back("Content-Length", std::to_string(*content_bytes));
  } else if (http11_) {
    headers.emplace_back("Transfer-Encoding", "chunked");
  } else {
    keep_alive_ = false;  // the end of the connection is the end of the stream
  }
  if (host_->options().decorate) host_->options().decorate(parser_->request(), status, headers);
  headers.emplace_back("Connection", keep_alive_ ? "keep-alive" : "close");
  headers.emplace_back("Date", host_->Date());
  if (request_id_.empty()) request_id_ = RequestId::Random().ToString();
  out_ += HttpHead(status, content_type, headers, request_id_);
  out_ += "\r\n";
  head_sent_ = true;
  host_->OnResponded(status);
}

void HttpConnection::Finish(HttpResponse response) {
  if (host_->draining()) keep_alive_ = false;
  SendHead(response.status, response.content_type, std::move(response.headers),
           response.body.size());
  if (!head_only_) out_ += response.body;
  phase_ = Phase::kFlushing;
  abandoned_ = nullptr;
  stream_.reset();
  ScheduleFlush();
}

void HttpConnection::Respond(uint64_t serial, HttpResponse response) {
  if (!Current(serial) || head_sent_) return;
  Finish(std::move(response));
}

void HttpConnection::BeginStream(uint64_t serial, HttpStreamHead head) {
  if (!Current(serial) || head_sent_) return;
  stream_ = std::move(head);
  keep_alive_due_us_ = host_->NowUs() + limits().keep_alive_interval_us;
}

bool HttpConnection::HeadSent(uint64_t serial) const {
  return Current(serial) && head_sent_;
}

void HttpConnection::OnAbandoned(uint64_t serial, std::function<void()> callback) {
  if (Current(serial)) {
    abandoned_ = std::move(callback);
  } else if (serial == serial_ && phase_ == Phase::kClosed) {
    host_->Post(std::move(callback));
  }
}

void HttpConnection::Write(uint64_t serial, std::string_view bytes) {
  if (!Current(serial) || !stream_.has_value()) return;
  if (!head_sent_) SendHead(200, stream_->content_type, std::move(stream_->headers), std::nullopt);
  WriteChunk(bytes);
  keep_alive_due_us_ = host_->NowUs() + limits().keep_alive_interval_us;
  if (Unsent() > limits().stream_buffer_bytes) return Close();
  ScheduleFlush();
}

void HttpConnection::WriteChunk(std::string_view bytes) {
  if (bytes.empty() || head_only_) return;
  if (!http11_) {
    out_ += bytes;
    return;
  }
  std::array<char, 16> size;
  const auto end = std::to_chars(size.data(), size.data() + size.size(), bytes.size(), 16);
  out_.append(size.data(), end.ptr).append("\r\n").append(bytes).append("\r\n");
}

void HttpConnection::End(uint64_t serial) {
  if (!Current(serial) || !stream_.has_value()) return;
  if (!head_sent_) SendHead(200, stream_->content_type, std::move(stream_->headers), std::nullopt);
  if (http11_ && !head_only_) out_ += "0\r\n\r\n";
  phase_ = Phase::kFlushing;
  abandoned_ = nullptr;
  stream_.reset();
  ScheduleFlush();
}

// One write for all that a turn of the loop produced.
void HttpConnection::ScheduleFlush() {
  if (flush_scheduled_ || !writing_.empty()) return;
  flush_scheduled_ = true;
  host_->Post([self = shared_from_this()] {
    self->flush_scheduled_ = false;
    self->Flush();
  });
}

void HttpConnection::Flush() {
  if (phase_ == Phase::kClosed) return;
  if (writing_.empty()) {
    if (out_.empty()) return OnAllWritten();
    writing_.swap(out_);
    written_ = 0;
    progress_mark_ = 0;
    write_due_us_ = host_->NowUs() + limits().write_timeout_us;
  }
  socket_.async_write_some(
      boost::asio::buffer(writing_.data() + written_, writing_.size() - written_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t count) {
        if (self->phase_ == Phase::kClosed) return;
        if (error) return self->Close();
        self->OnWritten(count);
      });
}

void HttpConnection::OnWritten(size_t count) {
  written_ += count;
  if (written_ < writing_.size()) {
    if (written_ - progress_mark_ >= kWriteProgressBytes) {
      progress_mark_ = written_;
      write_due_us_ = host_->NowUs() + limits().write_timeout_us;
    }
    return Flush();
  }
  writing_.clear();
  if (writing_.capacity() > kBufferKeptBytes) writing_.shrink_to_fit();
  written_ = 0;
  write_due_us_ = 0;
  Flush();
}

void HttpConnection::OnAllWritten() {
  if (phase_ != Phase::kFlushing) return;
  if (!keep_alive_ || host_->draining()) return Linger();
  NextRequest();
}

void HttpConnection::NextRequest() {
  parser_.emplace(HttpParser::Limits{limits().header_bytes_max, limits().body_bytes_max});
  header_seen_ = false;
  request_id_.clear();
  continue_sent_ = false;
  route_ = nullptr;
  phase_ = in_.empty() ? Phase::kIdle : Phase::kReading;
  deadline_us_ =
      host_->NowUs() + (in_.empty() ? limits().idle_timeout_us : limits().header_timeout_us);
  if (!in_.empty()) Advance();
  if (read_paused_ && phase_ != Phase::kClosed && in_.size() <= kPipelineBytesMax) {
    read_paused_ = false;
    Read();
  }
}

void HttpConnection::Linger() {
  if (peer_closed_) return Close();
  phase_ = Phase::kLingering;
  deadline_us_ = host_->NowUs() + kLingerUs;
  host_->OnLingering();
  in_.clear();
  boost::system::error_code ignored;
  socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  if (read_paused_) {
    read_paused_ = false;
    Read();
  }
}

void HttpConnection::Tick(int64_t now_us) {
  if (write_due_us_ != 0 && now_us >= write_due_us_) return Close();
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kLingering:
      if (now_us >= deadline_us_) Close();
      return;
    case Phase::kReading:
      if (now_us >= deadline_us_)
        Fault(408, header_seen_ ? "the request body took too long" : "the header took too long");
      return;
    case Phase::kAnswering:
      if (stream_.has_value() && !stream_->keep_alive.empty() && now_us >= keep_alive_due_us_)
        Write(serial_, std::string(stream_->keep_alive));
      return;
    default:
      return;
  }
}

bool HttpConnection::Busy() const {
  const bool whole = parser_.has_value() && parser_->state() == HttpParser::State::kDone;
  if (phase_ == Phase::kLingering) return !whole;  // closing now could destroy the refusal
  return phase_ != Phase::kIdle && phase_ != Phase::kClosed;
}

void HttpConnection::Close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  boost::system::error_code ignored;
  socket_.close(ignored);
  out_.clear();
  // Never from within the handler's own call: it may be in the middle of its bookkeeping.
  if (abandoned_) host_->Post(std::exchange(abandoned_, nullptr));
  host_->OnClosed(this);
}

}  // namespace muselet
