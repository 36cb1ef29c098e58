// What the connections of a Server share. Private to this room.
#pragma once

// Boost 1.74's awaitable.hpp uses std::exchange without including it.
#include <utility>
//
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/http/router.h"
#include "base/http/server.h"

namespace dsm::http {

class Connection;

// What the connections know of their server.
struct ServerCore {
  ServerCore(ServerOptions o, Logger l)
      : options(std::move(o)), log(std::move(l)), acceptor(boost::asio::make_strand(context)) {}

  boost::asio::awaitable<void> accept();
  Response error(int status, const std::string& message) const;
  void remove(Connection* connection);

  ServerOptions options;
  Logger log;
  Router router;
  ErrorBody make_error;
  std::atomic<std::size_t> body_bytes = 0;  // see BodyShare in connection.cc
  std::atomic<bool> close_after_answer = false;
  std::atomic<bool> stopping = false;

  mutable std::mutex mutex;
  std::condition_variable removed;
  std::map<Connection*, std::weak_ptr<Connection>> connections;

  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor;
  std::uint16_t port = 0;
  std::vector<std::thread> threads;
};

}  // namespace dsm::http
