// openapi.json and the server hold together: every route is documented, every documented path is
// routed, and what the server answers has the documented status.
#include <set>

#include "worker/server/openapi.h"
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

// {name} stands for a route's "*".
std::string as_route(std::string path) {
  const auto brace = path.find('{');
  return brace == std::string::npos ? path : path.substr(0, brace) + "*";
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// Every {"$ref": "#/..."} below `value`.
void collect_references(const json& value, std::set<std::string>& found) {
  if (value.is_object()) {
    if (const auto reference = value.find("$ref"); reference != value.end()) {
      found.insert(reference->get<std::string>());
    }
  }
  if (value.is_structured()) {
    for (const json& inner : value) collect_references(inner, found);
  }
}

TEST_F(WorkerServerTest, every_route_is_documented_and_every_documented_path_is_routed) {
  start();
  const json document = json::parse(kOpenApi);
  std::set<std::string> documented;
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      documented.insert(upper(method) + " " + as_route(path));
    }
  }
  std::set<std::string> routed;
  for (const auto& route : server->routes()) routed.insert(route.method + " " + route.path);
  EXPECT_EQ(documented, routed);
}

TEST_F(WorkerServerTest, the_document_is_served_and_refers_to_what_it_has) {
  start();
  const json document = get("/openapi.json").parsed();
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> references;
  collect_references(document, references);
  for (const std::string& reference : references) {
    EXPECT_TRUE(document.contains(json::json_pointer(reference.substr(1)))) << reference;
  }
  for (const char* kind : {"schemas", "responses", "headers", "parameters"}) {
    for (const auto& [name, value] : document["components"][kind].items()) {
      EXPECT_TRUE(references.contains("#/components/" + std::string(kind) + "/" + name)) << name;
    }
  }
}

TEST_F(WorkerServerTest, answers_have_a_documented_status_and_type) {
  start();
  const json document = json::parse(kOpenApi);
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string target = path;
      if (const auto brace = target.find('{'); brace != std::string::npos) {
        target = target.substr(0, brace) + "tiny";
      }
      for (const char* body : {"{}", "[1", R"({"model": "other", "prompt": "a", "input": "a"})"}) {
        const Answer answer = parse_answer(send(upper(method), target, body).read_to_end());
        const json& responses = operation["responses"];
        const std::string status = std::to_string(answer.status);
        ASSERT_TRUE(responses.contains(status)) << method << " " << path << " " << status;
        json response = responses[status];
        if (response.contains("$ref")) {
          response = document[json::json_pointer(response["$ref"].get<std::string>().substr(1))];
        }
        const std::string type = response["content"].begin().key();
        EXPECT_THAT(answer.head, ::testing::HasSubstr("Content-Type: " + type)) << path;
      }
    }
  }
}

}  // namespace
}  // namespace dsm::server
