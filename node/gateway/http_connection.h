// One connection of an HttpServer: reads requests one after the other, writes answers, notices at
// once when the client goes away (it never stops reading), and keeps the limits of time and memory.
// Private to the server.
//
// Loop thread only. Kept alive by its pending reads and writes.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "node/gateway/gateway_options.h"
#include "node/gateway/http_message.h"
#include "node/gateway/http_parser.h"
#include "node/gateway/http_server.h"

namespace muselet {

// What a connection needs from its server; outlives no connection, so it is shared.
class HttpConnectionHost {
 public:
  virtual ~HttpConnectionHost() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual const HttpRoutes& routes() const = 0;
  virtual int64_t NowUs() const = 0;
  // The Date header's value.
  virtual const std::string& Date() = 0;
  virtual bool draining() const = 0;
  virtual void Post(std::function<void()> work) = 0;
  virtual void OnResponded(int status) = 0;
  virtual void OnLingering() = 0;
  virtual void OnClosed(HttpConnection* connection) = 0;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpConnectionHost> host);

  void Start();
  // Says 503 and closes, whatever is asked: the server is full.
  void Refuse();
  // Looks at the deadlines; the server calls it several times a second.
  void Tick(int64_t now_us);
  // Whether the client is owed something: a request has begun, or its answer is not out yet.
  bool Busy() const;
  // Ends the connection now; an unfinished answer is abandoned.
  void Close();

  // HttpExchange's side. A serial that is not the current request's is ignored.
  void Respond(uint64_t serial, HttpResponse response);
  void BeginStream(uint64_t serial, HttpStreamHead head);
  bool HeadSent(uint64_t serial) const;
  void Write(uint64_t serial, std::string_view bytes);
  void End(uint64_t serial);
  void OnAbandoned(uint64_t serial, std::function<void()> callback);

 private:
  // kIdle: between requests. kReading: a request has begun. kAnswering: the handler owes an answer,
  // or streams it. kFlushing: the answer is queued. kLingering: all is sent, the client's unread
  // bytes are dropped so that it can read the answer before the connection is reset.
  enum class Phase { kIdle, kReading, kAnswering, kFlushing, kLingering, kClosed };

  void Read();
  void OnRead(size_t count);
  void OnPeerClosed();
  void Advance();
  bool OnHeader();
  void Dispatch();
  void Fault(int status, const std::string& message);
  void Finish(HttpResponse response);
  void SendHead(int status, std::string_view content_type, HttpHeaders headers,
                std::optional<size_t> content_bytes);
  void WriteChunk(std::string_view bytes);
  void ScheduleFlush();
  void Flush();
  void OnWritten(size_t count);
  void OnAllWritten();
  void NextRequest();
  void Linger();
  size_t Unsent() const { return out_.size() + writing_.size() - written_; }
  bool Current(uint64_t serial) const { return serial == serial_ && phase_ == Phase::kAnswering; }
  const HttpLimits& limits() const { return host_->options().limits; }

  boost::asio::ip::tcp::socket socket_;
  std::shared_ptr<HttpConnectionHost> host_;
  Phase phase_ = Phase::kIdle;
  int64_t deadline_us_ = 0;  // of idle, header, body and linger phases

  std::array<char, 8192> read_buffer_;
  std::string in_;  // read, not yet parsed
  bool read_paused_ = false;
  bool peer_closed_ = false;
  std::optional<HttpParser> parser_;
  bool header_seen_ = false;
  const HttpRoute* route_ = nullptr;

  uint64_t serial_ = 0;  // of the current request
  bool head_only_ = false;
  bool http11_ = true;
  bool keep_alive_ = false;
  bool continue_sent_ = false;
  std::string request_id_;
  std::function<void()> abandoned_;

  std::optional<HttpStreamHead> stream_;
  bool head_sent_ = false;
  int64_t keep_alive_due_us_ = 0;

  std::string out_;      // to be written next
  std::string writing_;  // being written
  size_t written_ = 0;   // of writing_
  size_t progress_mark_ = 0;
  int64_t write_due_us_ = 0;  // 0 = nothing is being written
  bool flush_scheduled_ = false;
};

}  // namespace muselet
