// The API over HTTP, by cpp-httplib. A thread serves a connection; the engine has its own.
#pragma once

#include <httplib.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "server/http/connection.h"
#include "server/http/crowding.h"
#include "server/service.h"

namespace qnpu::server {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;      // 0: any that is free
  std::string api_key;  // empty: none is asked for
  // Names that a request's Host may have besides those of the loopback. Requests are held against
  // them if there are any, or if `host` is of the loopback.
  std::vector<std::string> hosts;
  int max_connections = 256;
  ConnectionLimits connection = {};
  std::filesystem::path pages;  // folder of the chat page
};

class HttpServer : private httplib::Server {
 public:
  // Error: the address cannot be had, a file of the page is missing.
  HttpServer(Service& service, const HttpOptions& options);

  std::string url() const;  // without a path
  void serve();             // until stop()
  // Accepts nothing more; serve() returns when the answers that are being written are at their end.
  void stop();

 private:
  using Request = httplib::Request;
  using Response = httplib::Response;

  bool process_and_close_socket(socket_t socket) override;
  bool wait_for_request(Connection& connection);
  void bind();
  void name_hosts();
  void add_pages();
  void add_routes();
  HandlerResponse check_request(const Request& request, Response& response);
  std::string method_of(const Request& request) const;
  std::string read_body(const httplib::ContentReader& reader) const;
  void complete(const httplib::ContentReader& reader, Response& response, bool is_chat);
  void log(const Request& request, const Response& response);

  Service& service_;
  HttpOptions options_;
  int port_ = 0;
  std::map<std::string, std::string> methods_;  // path -> "GET" or "POST"
  std::vector<std::string> hosts_;              // that requests may name; empty: any
  std::atomic<int> connections_ = 0;
  IdleConnections idle_;
  TurnedAway turned_away_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace qnpu::server
