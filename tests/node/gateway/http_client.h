// A client that says exactly the bytes it is told, for tests of the HTTP server: blocking, on
// loopback, every read bounded by a deadline.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>
#include <string_view>

namespace muselet::testing {

inline constexpr auto kPatience = std::chrono::seconds(60);  // a loaded machine is slow, not wrong

struct HttpReply {
  int status = 0;  // 0: the connection ended before an answer
  std::string head;
  std::string body;

  // A header's value, by its name as written; "" if absent.
  std::string Header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class HttpClient {
 public:
  // `address` is 127.0.0.1:PORT. A receive buffer of `receive_bytes` makes a slow reader.
  explicit HttpClient(const std::string& address, int receive_bytes = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_bytes > 0)
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~HttpClient() { Close(); }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool connected() const { return connected_; }

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // the server closed: what it said before is still to be read
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }

  // False at the end of the connection, or when patience ends.
  bool ReadMore() {
    pollfd wait = {fd_, POLLIN, 0};
    const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(kPatience).count();
    if (::poll(&wait, 1, static_cast<int>(patience)) <= 0) {
      ADD_FAILURE() << "nothing came for " << patience << " ms";
      return false;
    }
    char buffer[65536];
    const ssize_t count = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (count <= 0) return false;
    in_.append(buffer, static_cast<size_t>(count));
    return true;
  }

  // Everything up to and with `mark`, taken from what came; "" if the connection ended before.
  std::string ReadUntil(std::string_view mark) {
    while (in_.find(mark) == std::string::npos) {
      if (!ReadMore()) return "";
    }
    return Take(in_.find(mark) + mark.size());
  }

  // True once the server has closed the connection; drops what still comes.
  bool ReadToEnd() {
    while (ReadMore()) {
    }
    return true;
  }

  // One answer, its body decoded. `head_only` for answers to HEAD.
  HttpReply Read(bool head_only = false) {
    HttpReply reply;
    reply.head = ReadUntil("\r\n\r\n");
    if (reply.head.size() < 12) return reply;
    reply.status = std::stoi(reply.head.substr(9, 3));
    if (head_only || reply.status == 204 || reply.status == 100) return reply;
    if (reply.Header("Transfer-Encoding") == "chunked") {
      reply.body = ReadChunks();
    } else {
      const size_t size = std::stoul("0" + reply.Header("Content-Length"));
      while (in_.size() < size && ReadMore()) {
      }
      reply.body = Take(std::min(size, in_.size()));
    }
    return reply;
  }

  HttpReply Ask(std::string_view bytes) {
    Send(bytes);
    return Read();
  }
  HttpReply Get(const std::string& path, const std::string& headers = "") {
    return Ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
  }
  HttpReply Post(const std::string& path, const std::string& body,
                 const std::string& headers = "") {
    return Ask(PostText(path, body, headers));
  }
  static std::string PostText(const std::string& path, const std::string& body,
                              const std::string& headers = "") {
    return "POST " + path +
           " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body;
  }

  // Sends FIN: the client says nothing more, and goes away.
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Sends RST.
  void Reset() {
    const linger now = {1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    Close();
  }

 private:
  std::string Take(size_t count) {
    std::string taken = in_.substr(0, count);
    in_.erase(0, count);
    return taken;
  }
  std::string ReadChunks() {
    std::string body;
    for (;;) {
      const std::string line = ReadUntil("\r\n");
      const size_t size = line.empty() ? 0 : std::stoul(line, nullptr, 16);
      while (in_.size() < size + 2 && ReadMore()) {
      }
      body += Take(size);
      Take(2);
      if (size == 0) return body;
    }
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string in_;
};

}  // namespace muselet::testing
