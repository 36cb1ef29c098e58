// The parts of the HTTP room that need no socket: names, escapes, routes, heads, the outbox.
#include <gtest/gtest.h>

#include "base/http/head.h"
#include "base/http/outbox.h"
#include "base/http/router.h"

namespace dsm::http {
namespace {

TEST(HttpMessage, header_names_compare_without_case) {
  Request request;
  request.headers["X-Request-ID"] = "a";
  EXPECT_EQ(request.header("x-request-id"), "a");
  EXPECT_EQ(request.header("x-request"), "");
}

TEST(HttpMessage, percent_decoding_refuses_broken_escapes_and_nul) {
  EXPECT_EQ(percent_decode("/a%20b%2Fc%e4"), "/a b/c\xe4");
  EXPECT_EQ(percent_decode("/plain"), "/plain");
  EXPECT_EQ(percent_decode("%"), std::nullopt);
  EXPECT_EQ(percent_decode("%4"), std::nullopt);
  EXPECT_EQ(percent_decode("%zz"), std::nullopt);
  EXPECT_EQ(percent_decode("%00"), std::nullopt);
}

Handler named(const std::string& name) {
  return [name](const Request&) {
    Response response;
    response.body = name;
    return response;
  };
}

std::string route_of(const Router& router, std::string_view method, std::string_view path) {
  const auto match = router.find(method, path);
  if (match.target == nullptr) return std::to_string(match.status) + " " + match.allow;
  return std::get<Handler>(*match.target)({}).body;
}

TEST(HttpRouter, exact_paths_win_over_prefixes_and_long_prefixes_over_short_ones) {
  Router router;
  router.add("GET", "/a", named("exact"));
  router.add("GET", "/a/*", named("short"));
  router.add("GET", "/a/b/*", named("long"));
  router.add("POST", "/a", named("post"));
  EXPECT_EQ(route_of(router, "GET", "/a"), "exact");
  EXPECT_EQ(route_of(router, "GET", "/a/x"), "short");
  EXPECT_EQ(route_of(router, "GET", "/a/b/x"), "long");
  EXPECT_EQ(route_of(router, "POST", "/a"), "post");
  EXPECT_EQ(route_of(router, "HEAD", "/a"), "exact");
  EXPECT_EQ(route_of(router, "PUT", "/a"), "405 GET, POST");
  EXPECT_EQ(route_of(router, "GET", "/"), "404 ");
  EXPECT_EQ(route_of(router, "GET", "/ab"), "404 ");
}

TEST(HttpHead, says_status_date_and_framing) {
  const std::string head =
      response_head(404, {{"Content-Type", "text/plain"}},
                    {.length = 3, .chunked = false, .close = true}, WallTime(Seconds(784111777)));
  EXPECT_EQ(head,
            "HTTP/1.1 404 Not Found\r\n"
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            "Content-Type: text/plain\r\n"
            "Content-Length: 3\r\n"
            "Connection: close\r\n\r\n");
}

TEST(HttpHead, a_header_value_cannot_end_the_head_or_change_the_framing) {
  const std::string head = response_head(
      200,
      {{"X-Bad", "a\r\nSet-Cookie: b"}, {"X\nBad", "c"}, {"content-length", "9"}, {"X-Good", "d"}},
      {.length = std::nullopt, .chunked = true, .close = false}, WallTime{});
  EXPECT_EQ(head.find("Set-Cookie"), std::string::npos);
  EXPECT_EQ(head.find("Bad"), std::string::npos);
  EXPECT_EQ(head.find("ength: 9"), std::string::npos);
  EXPECT_NE(head.find("X-Good: d\r\n"), std::string::npos);
  EXPECT_NE(head.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
}

TEST(HttpHead, a_chunk_tells_its_size_in_hexadecimal) {
  EXPECT_EQ(chunk(std::string(26, 'x')), "1a\r\n" + std::string(26, 'x') + "\r\n");
}

TEST(HttpOutbox, collects_what_was_written_between_two_takes) {
  int wakes = 0;
  Outbox outbox([&] { ++wakes; });
  outbox.write("lost: not started");
  outbox.start(200, {{"A", "b"}});
  outbox.write("one");
  outbox.write("two");
  EXPECT_EQ(outbox.buffered_bytes(), 6u);
  const auto first = outbox.take();
  ASSERT_TRUE(first.head.has_value());
  EXPECT_EQ(first.head->status, 200);
  EXPECT_EQ(first.data, "onetwo");
  EXPECT_FALSE(first.finished);
  outbox.sent(6);
  EXPECT_EQ(outbox.buffered_bytes(), 0u);
  outbox.finish();
  outbox.write("lost: finished");
  const auto second = outbox.take();
  EXPECT_TRUE(second.finished);
  EXPECT_EQ(second.data, "");
  EXPECT_EQ(wakes, 4);
}

TEST(HttpOutbox, closing_tells_a_producer_that_has_not_finished) {
  bool told = false;
  Outbox outbox([] {});
  outbox.on_close([&] { told = true; });
  outbox.start(200, {});
  outbox.close();
  EXPECT_TRUE(told);
  EXPECT_TRUE(outbox.closed());
  outbox.write("lost");
  EXPECT_TRUE(outbox.take().empty());
}

TEST(HttpOutbox, closing_says_nothing_to_a_producer_that_has_finished) {
  bool told = false;
  Outbox outbox([] {});
  outbox.on_close([&] { told = true; });
  outbox.respond({});
  outbox.close();
  EXPECT_FALSE(told);
}

TEST(HttpOutbox, a_producer_that_asks_late_is_told_at_once) {
  bool told = false;
  Outbox outbox([] {});
  outbox.close();
  outbox.on_close([&] { told = true; });
  EXPECT_TRUE(told);
}

TEST(HttpOutbox, only_the_first_answer_counts) {
  Outbox outbox([] {});
  Response first;
  first.status = 202;
  outbox.respond(first);
  outbox.respond({});
  outbox.start(500, {});
  outbox.abandon();
  const auto taken = outbox.take();
  ASSERT_TRUE(taken.response.has_value());
  EXPECT_EQ(taken.response->status, 202);
  EXPECT_FALSE(taken.head.has_value());
  EXPECT_FALSE(taken.abandoned);
}

}  // namespace
}  // namespace dsm::http
