// API keys: who is let in, as told over the internal port.
#include "base/random.h"
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSalt = "5a17";

std::string hash_of(const std::string& key) {
  return hmac_sha256_hex(kSalt, sha256_hex(key));
}

json message(const std::vector<std::string>& keys, const std::string& cache_salt = "team-a") {
  json body = {{"digest", "d" + std::to_string(keys.size())},
               {"required", true},
               {"hashSalt", kSalt},
               {"cacheSalt", cache_salt},
               {"keys", json::array()}};
  for (const std::string& key : keys) body["keys"].push_back(hash_of(key));
  return body;
}

class KeysTest : public WorkerServerTest {
 protected:
  int tell(const std::string& body, const std::string& token = "secret") const {
    TestSocket socket(server->internal_port());
    socket.send(request("PUT", "/internal/keys", body, "Authorization: Bearer " + token + "\r\n"));
    return parse_answer(socket.read_to_end()).status;
  }
  int tell(const json& body) const { return tell(body.dump()); }
  Answer ask(const std::string& headers, const std::string& fields = "") const {
    return parse_answer(
        send("POST", "/v1/chat/completions", chat_body(fields), headers).read_to_end());
  }
  int with(const std::string& key) const {
    return ask("Authorization: Bearer " + key + "\r\n").status;
  }
};

TEST_F(KeysTest, without_being_told_anything_everybody_is_let_in) {
  start();
  EXPECT_EQ(chat().status, 200);
  EXPECT_EQ(server->view().keys, "");
}

TEST_F(KeysTest, a_leader_that_awaits_its_keys_answers_nobody_and_is_not_ready) {
  start({.await_keys = true});
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_EQ(get("/health/ready").parsed()["reason"], "AwaitingKeys");
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(get("/health/startup").status, 200);
  EXPECT_EQ(get("/metrics").status, 200);
  EXPECT_EQ(with("a key that will be told"), 503);
  EXPECT_EQ(get("/v1/models").status, 503);
  EXPECT_EQ(server->view().keys, "awaited");
  EXPECT_EQ(server->view().phase(), "Rendezvous");
  EXPECT_EQ(tell(message({"a key that will be told"})), 200);
  EXPECT_EQ(get("/health/ready").status, 200);
  EXPECT_EQ(server->view().keys, "d1");
  EXPECT_EQ(with("a key that will be told"), 200);
}

TEST_F(KeysTest, only_a_key_opens_and_the_refusal_has_openais_form) {
  start();
  ASSERT_EQ(tell(message({"first-key-0123456789", "second-key-012345678"})), 200);
  EXPECT_EQ(with("first-key-0123456789"), 200);
  EXPECT_EQ(with("second-key-012345678"), 200);
  for (const char* headers :
       {"", "Authorization: Bearer \r\n", "Authorization: Bearer first-key-012345678\r\n",
        "Authorization: Bearer first-key-01234567890\r\n",
        "Authorization: first-key-0123456789\r\n", "Authorization: bearer\r\n"}) {
    const Answer refused = ask(headers);
    EXPECT_EQ(refused.status, 401) << headers;
    EXPECT_EQ(refused.parsed()["error"]["code"], "invalid_api_key");
    EXPECT_EQ(refused.parsed()["error"]["type"], "authentication_error");
  }
  EXPECT_EQ(with(std::string(5000, 'x')), 401);
  EXPECT_EQ(with(hash_of("first-key-0123456789")), 401) << "what was told opens nothing itself";
}

TEST_F(KeysTest, every_route_that_is_not_health_or_metrics_needs_a_key) {
  start();
  ASSERT_EQ(tell(message({"first-key-0123456789"})), 200);
  for (const auto& route : server->routes()) {
    const bool needs_key = route.path.starts_with("/v1/") || route.path.starts_with("/beta/") ||
                           route.path.ends_with("tokenize");
    std::string path = route.path;
    if (path.ends_with("/*")) path.replace(path.size() - 1, 1, "tiny");
    const Answer answer = parse_answer(send(route.method, path, "{}").read_to_end());
    EXPECT_EQ(answer.status == 401, needs_key) << route.method << " " << path;
  }
  // Anthropic's clients send the key in a header of its own and know another form of errors.
  const Answer refused = post("/v1/messages", "{}");
  EXPECT_EQ(refused.parsed()["type"], "error");
  EXPECT_EQ(refused.parsed()["error"]["type"], "authentication_error");
  EXPECT_EQ(parse_answer(
                send("GET", "/v1/models", "", "X-Api-Key: first-key-0123456789\r\n").read_to_end())
                .status,
            200);
}

TEST_F(KeysTest, a_key_is_rotated_and_revoked_from_the_next_request_on) {
  start();
  ASSERT_EQ(tell(message({"old-key-0123456789"})), 200);
  EXPECT_EQ(with("old-key-0123456789"), 200);
  ASSERT_EQ(tell(message({"old-key-0123456789", "new-key-0123456789"})), 200);
  EXPECT_EQ(with("old-key-0123456789"), 200);
  EXPECT_EQ(with("new-key-0123456789"), 200);
  ASSERT_EQ(tell(message({"new-key-0123456789"})), 200);
  EXPECT_EQ(with("old-key-0123456789"), 401);
  EXPECT_EQ(with("new-key-0123456789"), 200);
  ASSERT_EQ(tell(message({})), 200);
  EXPECT_EQ(with("new-key-0123456789"), 401) << "no key is left: nobody is let in";
  ASSERT_EQ(tell(json{{"digest", "open"}, {"required", false}}), 200);
  EXPECT_EQ(chat().status, 200);
}

TEST_F(KeysTest, a_message_that_cannot_be_read_or_comes_from_somebody_else_changes_nothing) {
  start();
  ASSERT_EQ(tell(message({"first-key-0123456789"})), 200);
  EXPECT_EQ(tell(message({}).dump(), "wrong"), 401);
  json wrong = message({"first-key-0123456789"});
  for (const auto& patch :
       {json{{"required", "no"}}, json{{"digest", ""}}, json{{"digest", nullptr}},
        json{{"hashSalt", nullptr}}, json{{"keys", 5}}, json{{"keys", json::array({"12"})}},
        json{{"keys", json::array({5})}}}) {
    json body = wrong;
    body.merge_patch(patch);
    EXPECT_EQ(tell(body), 400) << patch;
  }
  EXPECT_EQ(tell(std::string("{broken")), 400);
  EXPECT_EQ(tell(std::string("[]")), 400);
  EXPECT_EQ(with("first-key-0123456789"), 200);
  EXPECT_EQ(chat().status, 401);
}

TEST_F(KeysTest, the_prefix_of_one_tenant_never_speeds_up_anothers) {
  start({.prefix_caching = true});
  std::string words;
  for (int i = 0; i < 100; ++i) words += "word ";
  const std::string fields = R"("messages": [{"role": "user", "content": ")" + words + R"("}])";
  const auto cached = [&](const std::string& salt, const std::string& client_salt) {
    EXPECT_EQ(tell(message({"first-key-0123456789"}, salt)), 200);
    const std::string body =
        R"({"model": "tiny", "cache_salt": ")" + client_salt + "\", " + fields + "}";
    const Answer answer = parse_answer(
        send("POST", "/v1/chat/completions", body, "Authorization: Bearer first-key-0123456789\r\n")
            .read_to_end());
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.parsed()["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached("team-a", "x"), 0);
  EXPECT_GT(cached("team-a", "x"), 0);
  EXPECT_EQ(cached("team-b", "x"), 0);
  EXPECT_EQ(cached("team-a", "y"), 0) << "a client's own salt counts beside the tenant's";
  EXPECT_GT(cached("team-a", "x"), 0);
}

}  // namespace
}  // namespace dsm::server
