// An OpenAI-compatible server of a few lines, on a loopback port that the system chooses: answers
// with "tok0 tok1 ..." as server-sent events, or as the test's script says. Over TLS if it is given
// a certificate.
#pragma once

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"

namespace muselet::testing {

class FakeOpenAiServer {
 public:
  // Bytes to send for the request `body` on `target`.
  using Script = std::function<std::string(const std::string& target, const std::string& head,
                                           const std::string& body)>;

  struct Options {
    bool keep_alive = false;  // more requests on a connection; else it is closed after one
    SSL_CTX* tls = nullptr;   // borrowed
    // Answers a body longer than this from its head alone, and closes.
    size_t body_bytes_max = SIZE_MAX;
  };

  explicit FakeOpenAiServer(Script script) : FakeOpenAiServer(std::move(script), Options{}) {}
  FakeOpenAiServer(Script script, const Options& options)
      : script_(std::move(script)), options_(options) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    CHECK(listen(listener_, 128) == 0);
    CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~FakeOpenAiServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& worker : workers_) worker.join();
    close(listener_);
  }

  uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int connections() const { return connections_; }
  std::vector<std::string> bodies() {
    const std::lock_guard lock(mutex_);
    return bodies_;
  }

  static std::string Answer(int code, const std::string& type, const std::string& body) {
    return "HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Type: " + type +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  static std::string Models() {
    return Answer(200, "application/json", R"({"data":[{"id":"fake-model"},{"id":"other"}]})");
  }
  static std::string Event(const std::string& data) { return "data: " + data + "\n\n"; }
  // A chat stream of `tokens` pieces, chunked, with usage if `usage`.
  static std::string Stream(int tokens, bool usage) {
    std::string events = Event(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
    for (int i = 0; i < tokens; ++i) {
      events += Event(R"({"choices":[{"delta":{"content":"tok)" + std::to_string(i) + R"( "}}]})");
    }
    events += Event(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
    if (usage) {
      events += Event(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":)" +
                      std::to_string(tokens) + "}}");
    }
    return Chunked(events + Event("[DONE]"));
  }
  static std::string Chunked(const std::string& body) {
    std::string text =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    constexpr size_t kPiece = 37;  // cuts events anywhere
    for (size_t at = 0; at < body.size(); at += kPiece) {
      const std::string piece = body.substr(at, kPiece);
      char size[16];
      snprintf(size, sizeof(size), "%zx\r\n", piece.size());
      text += size + piece + "\r\n";
    }
    return text + "0\r\n\r\n";
  }

 private:
  // A connection, plain or secure. Reads and writes on one thread.
  class Channel {
   public:
    Channel(int fd, SSL_CTX* tls) : fd_(fd), ssl_(tls ? SSL_new(tls) : nullptr, &SSL_free) {
      if (ssl_) SSL_set_fd(ssl_.get(), fd_);
    }
    bool Open() { return !ssl_ || SSL_accept(ssl_.get()) == 1; }
    ssize_t Read(char* data, size_t size) {
      if (ssl_) return SSL_read(ssl_.get(), data, static_cast<int>(size));
      return recv(fd_, data, size, 0);
    }
    ssize_t Write(const char* data, size_t size) {
      if (ssl_) return SSL_write(ssl_.get(), data, static_cast<int>(size));
      return send(fd_, data, size, MSG_NOSIGNAL);
    }

   private:
    int fd_;
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
  };

  void Accept() {
    for (;;) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      ++connections_;
      workers_.emplace_back([this, fd] { Serve(fd); });
    }
  }

  void Serve(int fd) {
    {
      const std::lock_guard lock(mutex_);
      open_.insert(fd);
    }
    Channel channel(fd, options_.tls);
    if (channel.Open()) {
      while (ServeOne(channel) && options_.keep_alive) continue;
    }
    const std::lock_guard lock(mutex_);
    open_.erase(fd);
    close(fd);
  }

  // False if the client has gone.
  bool ServeOne(Channel& channel) {
    std::string text;
    char buffer[4096];
    size_t head_end = std::string::npos;
    size_t body_bytes = 0;
    while (head_end == std::string::npos || text.size() < head_end + 4 + body_bytes) {
      const ssize_t length = channel.Read(buffer, sizeof(buffer));
      if (length <= 0) return false;
      text.append(buffer, static_cast<size_t>(length));
      head_end = text.find("\r\n\r\n");
      const size_t field = text.find("Content-Length: ");
      if (field != std::string::npos) body_bytes = std::stoul(text.substr(field + 16));
      if (body_bytes > options_.body_bytes_max) {
        const std::string refusal = Answer(413, "text/plain", "too large");
        channel.Write(refusal.data(), refusal.size());
        return false;
      }
    }
    const size_t space = text.find(' ');
    const std::string target = text.substr(space + 1, text.find(' ', space + 1) - space - 1);
    const std::string body = text.substr(head_end + 4);
    if (!body.empty()) {
      const std::lock_guard lock(mutex_);
      bodies_.push_back(body);
    }
    const std::string answer = script_(target, text.substr(0, head_end), body);
    size_t sent = 0;
    while (sent < answer.size()) {
      const ssize_t length = channel.Write(answer.data() + sent, answer.size() - sent);
      if (length <= 0) return false;
      sent += static_cast<size_t>(length);
    }
    return true;
  }

  Script script_;
  Options options_;
  int listener_ = -1;
  std::atomic<int> connections_ = 0;
  uint16_t port_ = 0;
  std::thread acceptor_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::vector<std::string> bodies_;
  std::set<int> open_;
};

}  // namespace muselet::testing
