// OpenSSL's side of Tls, for the connections. Private to this room.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <string>

#include "base/http/tls.h"

namespace dsm::http {

struct Tls::Context {
  boost::asio::ssl::context ssl{boost::asio::ssl::context::tls_server};
};

// What the peer of a finished handshake showed, in PEM, its own first; "" when it showed nothing.
std::string peer_certificates(SSL* ssl);

}  // namespace dsm::http
