// The description of the public API (OpenAPI 3.1), as it is served at /openapi.json. The text is
// openapi.json beside this file; a test holds it and the routes together.
#pragma once

namespace dsm::server {

extern const char* const kOpenApi;

}  // namespace dsm::server
