// A blocking TLS client for tests of a Server with TLS: one connection, which checks the server's
// certificate and may show one of its own.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/completion_condition.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <string>

#include "base/certificate.h"

namespace dsm::http {

class TestTlsClient {
 public:
  TestTlsClient(std::uint16_t port, const std::string& trust, const std::string& name,
                const KeyPair* own = nullptr)
      : context_(context(trust, own)), stream_(io_, context_) {
    stream_.set_verify_mode(boost::asio::ssl::verify_peer);
    stream_.set_verify_callback(boost::asio::ssl::host_name_verification(name));
    stream_.next_layer().connect({boost::asio::ip::address_v4::loopback(), port}, error_);
    if (!error_) stream_.handshake(boost::asio::ssl::stream_base::client, error_);
  }
  bool connected() const { return !error_; }
  // The whole answer to one request; "" when the connection ended.
  std::string get(const std::string& path, const std::string& headers = "") {
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n";
    boost::asio::write(stream_, boost::asio::buffer(request), error_);
    std::string answer;
    std::size_t size =
        boost::asio::read_until(stream_, boost::asio::dynamic_buffer(answer), "\r\n\r\n", error_);
    const auto length = answer.find("Content-Length: ");
    if (error_ || length == std::string::npos) return {};
    size += std::stoul(answer.substr(length + 16));
    if (answer.size() < size) {
      boost::asio::read(stream_, boost::asio::dynamic_buffer(answer),
                        boost::asio::transfer_exactly(size - answer.size()), error_);
    }
    return error_ ? std::string() : answer;
  }

 private:
  static boost::asio::ssl::context context(const std::string& trust, const KeyPair* own) {
    boost::asio::ssl::context made(boost::asio::ssl::context::tls_client);
    made.add_certificate_authority(boost::asio::buffer(trust));
    if (own != nullptr) {
      made.use_certificate_chain(boost::asio::buffer(own->certificate));
      made.use_private_key(boost::asio::buffer(own->key), boost::asio::ssl::context::pem);
    }
    return made;
  }

  boost::asio::io_context io_;
  boost::asio::ssl::context context_;
  boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream_;
  boost::system::error_code error_;
};

}  // namespace dsm::http
