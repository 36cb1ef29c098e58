#include "base/http/server.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "base/http/boost_names.h"
#include "base/http/connection.h"
#include "base/http/server_core.h"

namespace dsm::http {

net::awaitable<void> ServerCore::accept() {
  while (!stopping) {
    tcp::socket socket(net::make_strand(context));
    error_code ec;
    co_await acceptor.async_accept(socket, net::redirect_error(net::use_awaitable, ec));
    if (stopping || ec == net::error::operation_aborted || ec == net::error::bad_descriptor) break;
    if (ec) {
      // Most likely out of file descriptors: some are given back soon.
      log.info("cannot accept a connection", {{"error", ec.message()}});
      net::steady_timer pause(acceptor.get_executor(), Millis(100));
      co_await pause.async_wait(net::redirect_error(net::use_awaitable, ec));
      continue;
    }
    socket.set_option(tcp::no_delay(true), ec);
    socket.non_blocking(true, ec);
    std::shared_ptr<Tls::Context> tls;
    if (options.tls) {
      tls = options.tls->context();
      if (!tls) continue;  // no certificate yet
    }
    auto connection = std::make_shared<Connection>(*this, std::move(socket), std::move(tls));
    {
      std::lock_guard lock(mutex);
      // `stopping` is set under the lock, so stop() sees this connection or we see `stopping`.
      if (stopping) break;
      if (connections.size() >= options.max_connections) continue;
      connections.emplace(connection.get(), connection);
    }
    connection->run();
  }
}

Response ServerCore::error(int status, const std::string& message) const {
  if (make_error) return make_error(status, message);
  return {.status = status, .content_type = "text/plain", .body = message + "\n", .headers = {}};
}

void ServerCore::remove(Connection* connection) {
  std::lock_guard lock(mutex);
  connections.erase(connection);
  removed.notify_all();
}

struct Server::Impl : ServerCore {
  using ServerCore::ServerCore;
};

Server::Server(ServerOptions options, Logger log)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(log))) {}

Server::~Server() {
  stop();
}

void Server::route(const std::string& method, const std::string& path, Handler handler) {
  impl_->router.add(method, path, std::move(handler));
}

void Server::route_async(const std::string& method, const std::string& path, AsyncHandler handler) {
  impl_->router.add(method, path, std::move(handler));
}

void Server::error_body(ErrorBody make) {
  impl_->make_error = std::move(make);
}

void Server::close_connections_after_answer(bool on) {
  impl_->close_after_answer = on;
}

Status Server::start() {
  const std::string address = impl_->options.host + ":" + std::to_string(impl_->options.port);
  error_code ec;
  tcp::resolver resolver(impl_->context);
  const auto found = resolver.resolve(impl_->options.host, std::to_string(impl_->options.port),
                                      tcp::resolver::passive, ec);
  if (!ec && found.empty()) ec = net::error::host_not_found;
  auto& acceptor = impl_->acceptor;
  if (!ec) {
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol(), ec);
    if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec) acceptor.bind(endpoint, ec);
    if (!ec) acceptor.listen(net::socket_base::max_listen_connections, ec);
  }
  if (ec) {
    error_code ignored;
    acceptor.close(ignored);
    return fail(ErrorKind::kTransient, "cannot listen on " + address + ": " + ec.message());
  }
  impl_->port = acceptor.local_endpoint(ec).port();
  net::co_spawn(acceptor.get_executor(), impl_->accept(), net::detached);
  for (int i = 0; i < std::max(1, impl_->options.threads); ++i) {
    // The accepting coroutine and the connections are the work that keeps run() going.
    impl_->threads.emplace_back([impl = impl_.get()] { impl->context.run(); });
  }
  return {};
}

std::uint16_t Server::port() const {
  return impl_->port;
}

std::size_t Server::connections() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->connections.size();
}

void Server::stop(int grace_s) {
  if (impl_->threads.empty()) return;
  std::unique_lock lock(impl_->mutex);
  impl_->stopping = true;
  net::post(impl_->acceptor.get_executor(), [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor.close(ignored);
  });
  for (const auto& [raw, weak] : impl_->connections) {
    if (const auto connection = weak.lock()) connection->wake();
  }
  impl_->removed.wait_for(lock, Seconds(grace_s), [this] { return impl_->connections.empty(); });
  for (const auto& [raw, weak] : impl_->connections) {
    if (const auto connection = weak.lock()) connection->kill();
  }
  impl_->removed.wait(lock, [this] { return impl_->connections.empty(); });
  lock.unlock();
  for (auto& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

}  // namespace dsm::http
