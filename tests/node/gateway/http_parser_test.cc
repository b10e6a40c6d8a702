#include "node/gateway/http_parser.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

using State = HttpParser::State;

// Feeds `bytes` in pieces of `step`; returns what was left over.
std::string FeedAll(HttpParser& parser, std::string_view bytes, size_t step) {
  std::string pending;
  size_t next = 0;
  for (;;) {
    const size_t used = parser.Feed(pending);
    pending.erase(0, used);
    if (parser.state() == State::kDone || parser.state() == State::kFault) break;
    if (used > 0) continue;
    if (next == bytes.size()) break;
    const size_t count = std::min(step, bytes.size() - next);
    pending += bytes.substr(next, count);
    next += count;
  }
  if (next < bytes.size()) pending += bytes.substr(next);
  return pending;
}

int FaultOf(std::string_view bytes) {
  HttpParser parser({});
  FeedAll(parser, bytes, bytes.size());
  return parser.state() == State::kFault ? parser.fault_status() : 0;
}

std::string Request(const std::string& headers, const std::string& body = "") {
  return "POST /p HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body;
}

TEST(HttpParserTest, ReadsARequestInPiecesOfAnySize) {
  const std::string bytes =
      "POST /v1/a%20b?q=1 HTTP/1.1\r\nHost: h\r\nX-Request-Id: abc\r\nContent-Length: "
      "5\r\n\r\nhelloREST";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    HttpParser parser({});
    const std::string rest = FeedAll(parser, bytes, step);
    ASSERT_EQ(parser.state(), State::kDone) << step;
    EXPECT_EQ(parser.request().method, "POST");
    EXPECT_EQ(parser.request().path, "/v1/a b");
    EXPECT_EQ(parser.request().query, "q=1");
    EXPECT_EQ(parser.request().body, "hello");
    EXPECT_EQ(parser.request().id, "abc");
    EXPECT_EQ(rest, "REST");
    EXPECT_TRUE(parser.keep_alive());
  }
}

TEST(HttpParserTest, ReadsChunksInPiecesOfAnySizeAndIgnoresTrailers) {
  const std::string bytes = Request("Transfer-Encoding: chunked\r\n",
                                    "2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nHost: evil\r\n\r\nNEXT");
  for (size_t step = 1; step <= bytes.size(); ++step) {
    HttpParser parser({});
    const std::string rest = FeedAll(parser, bytes, step);
    ASSERT_EQ(parser.state(), State::kDone) << step << " " << parser.fault_message();
    EXPECT_EQ(parser.request().body, "hello");
    EXPECT_EQ(parser.request().Header("host"), "x");
    EXPECT_EQ(rest, "NEXT");
  }
}

TEST(HttpParserTest, RefusesWhatTwoServersCouldReadInTwoWays) {
  EXPECT_EQ(FaultOf(Request("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
            400);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", "0\r\n\r\n")),
            400);
  EXPECT_EQ(FaultOf(Request("Content-Length: 1\r\nContent-Length: 1\r\n", "a")), 400);
  EXPECT_EQ(FaultOf(Request("Content-Length: 1, 1\r\n", "a")), 400);
  EXPECT_EQ(FaultOf(Request("Content-Length: -1\r\n")), 400);
  EXPECT_EQ(FaultOf(Request("Content-Length: +1\r\n", "a")), 400);
  EXPECT_EQ(FaultOf(Request("Content-Length: 99999999999999999999\r\n")), 400);
  EXPECT_EQ(FaultOf(Request("Host: y\r\n")), 400);
  EXPECT_EQ(FaultOf("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(FaultOf(Request("A : b\r\n")), 400);
  EXPECT_EQ(FaultOf(Request("A: b\r\n c\r\n")), 400);
  EXPECT_EQ(FaultOf("GET / HTTP/1.1\nHost: x\n\n"), 400);
  EXPECT_EQ(FaultOf(std::string("GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n", 29)), 400);
  EXPECT_EQ(FaultOf("GET http HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(FaultOf("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(FaultOf("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
  EXPECT_EQ(FaultOf("\x16\x03\x01\x02\r\n\r\n"), 400);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: gzip, chunked\r\n")), 501);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: gzip\r\n")), 501);
  EXPECT_EQ(FaultOf("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: chunked\r\n", "-2\r\nab\r\n")), 400);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: chunked\r\n", "g\r\n")), 400);
  EXPECT_EQ(FaultOf(Request("Content-Encoding: gzip\r\nContent-Length: 1\r\n", "a")), 415);
  EXPECT_EQ(FaultOf(Request("Expect: tea\r\n")), 417);
}

TEST(HttpParserTest, RefusesWhatIsTooLarge) {
  EXPECT_EQ(FaultOf(Request("A: " + std::string(17'000, 'a') + "\r\n")), 431);
  EXPECT_EQ(FaultOf("GET /" + std::string(17'000, 'a')), 431);
  EXPECT_EQ(FaultOf("GET /" + std::string(5'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n"), 414);
  std::string many;
  for (int i = 0; i < 70; ++i) many += "A" + std::to_string(i) + ": b\r\n";
  EXPECT_EQ(FaultOf(Request(many)), 431);
  EXPECT_EQ(FaultOf(Request("Content-Length: 5000000\r\n")), 413);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: chunked\r\n", "500000\r\n")), 413);
  EXPECT_EQ(FaultOf(Request("Transfer-Encoding: chunked\r\n", "1;" + std::string(9'000, 'x'))),
            400);
}

TEST(HttpParserTest, SaysWhetherTheConnectionGoesOn) {
  HttpParser one({});
  FeedAll(one, "GET / HTTP/1.0\r\n\r\n", 99);
  EXPECT_EQ(one.state(), State::kDone);
  EXPECT_FALSE(one.keep_alive());
  HttpParser two({});
  FeedAll(two, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 99);
  EXPECT_FALSE(two.keep_alive());
  HttpParser three({});
  FeedAll(three, "\r\nGET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", 99);
  EXPECT_EQ(three.state(), State::kDone);
  EXPECT_TRUE(three.expects_continue());
}

}  // namespace
}  // namespace muselet
