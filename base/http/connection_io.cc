// How bytes come into a Connection and leave it, plain or through TLS.

// Boost 1.74's awaitable.hpp uses std::exchange without including it.
#include <utility>
//
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/http/boost_names.h"
#include "base/http/connection.h"

namespace dsm::http {

net::awaitable<void> Connection::shake_hands(error_code& ec) {
  limit(Seconds(server_.options.read_timeout_s));
  co_await secret_->stream.async_handshake(net::ssl::stream_base::server,
                                           net::redirect_error(net::use_awaitable, ec));
  unlimit();
  if (!ec) secret_->peer = peer_certificates(secret_->stream.native_handle());
}

net::awaitable<void> Connection::read_some(error_code& ec) {
  ec = {};
  if (secret_) {
    secret_->input.resize(kReadBytes);
    const std::size_t n = co_await secret_->stream.async_read_some(
        net::buffer(secret_->input), net::redirect_error(net::use_awaitable, ec));
    input_.commit(net::buffer_copy(input_.prepare(n), net::buffer(secret_->input, n)));
    co_return;
  }
  // Waiting needs no buffer, so an idle connection holds none.
  auto& socket = stream_.socket();
  co_await socket.async_wait(tcp::socket::wait_read, net::redirect_error(net::use_awaitable, ec));
  if (ec) co_return;
  const std::size_t n = socket.read_some(input_.prepare(kReadBytes), ec);
  if (!ec) input_.commit(n);
}

net::awaitable<std::size_t> Connection::write_some(std::string_view bytes, error_code& ec) {
  const Seconds time(server_.options.write_timeout_s);
  if (secret_) {
    limit(time);
    const std::size_t n = co_await secret_->stream.async_write_some(
        net::buffer(bytes), net::redirect_error(net::use_awaitable, ec));
    unlimit();
    co_return n;
  }
  stream_.expires_after(time);
  co_return co_await stream_.async_write_some(net::buffer(bytes),
                                              net::redirect_error(net::use_awaitable, ec));
}

void Connection::limit(Seconds time) {
  secret_->limit.expires_after(time);
  secret_->limit.async_wait([weak = weak_from_this()](error_code ec) {
    const auto self = weak.lock();
    if (!ec && self) self->close();
  });
}

}  // namespace dsm::http
