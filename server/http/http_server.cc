#include "server/http/http_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"
#include "server/api/fields.h"
#include "server/http/answering.h"
#include "server/http/hosts.h"
#include "server/http/request_checks.h"

namespace qnpu::server {
namespace {

constexpr int kBacklog = 128;  // httplib's own is 5
// Threads beyond those of the connections allowed, for those that come when there are too many.
constexpr int kSpareThreads = 4;

void set_error(const ApiError& error, httplib::Response& response) {
  response.status = error.status;
  if (error.status == 401) response.set_header("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503) response.set_header("Retry-After", "1");
  response.set_content(error_body(error), "application/json");
}

// Of an answer behind which the rest of the request may still lie unread.
void set_last_error(const ApiError& error, httplib::Response& response) {
  Connection::current()->close_after_answer();
  response.set_header("Connection", "close");
  set_error(error, response);
}

// All of an answer to a connection whose request nobody reads.
std::string too_many() {
  const std::string body =
      error_body({503, "The server has too many connections. Try again later."});
  return fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{}",
      body.size(), body);
}

// Calls `on_idle` while nobody comes.
class Threads : public httplib::ThreadPool {
 public:
  Threads(int count, std::function<void()> on_idle)
      : ThreadPool(static_cast<size_t>(count)), on_idle_(std::move(on_idle)) {}
  void on_idle() override { on_idle_(); }

 private:
  std::function<void()> on_idle_;
};

void set_exception(const std::exception_ptr& pointer, httplib::Response& response) {
  try {
    std::rethrow_exception(pointer);
  } catch (const ApiError& error) {
    set_error(error, response);
  } catch (...) {
    set_error({500, "The server could not answer this request."}, response);
  }
}

}  // namespace

HttpServer::HttpServer(Service& service, const HttpOptions& options)
    : service_(service), options_(options) {
  set_socket_options([](socket_t socket) {
    const int yes = 1;  // and not SO_REUSEPORT: two servers on one port are a mistake
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  // For the header that tells clients of it.
  set_keep_alive_timeout(options.connection.idle / std::chrono::seconds(1));
  set_keep_alive_max_count(1000000);
  set_idle_interval(std::chrono::milliseconds(500));
  new_task_queue = [this] {
    return new Threads(options_.max_connections + kSpareThreads,
                       [this] { turned_away_.close_old(); });
  };
  set_pre_routing_handler([this](const Request& request, Response& response) {
    return check_request(request, response);
  });
  set_error_handler(Handler([](const Request&, Response& response) {
    if (!response.body.empty()) return;  // an error of our own
    set_last_error(protocol_error(response.status, Connection::current()->trouble()), response);
  }));
  set_exception_handler([](const Request&, Response& response, const std::exception_ptr& pointer) {
    set_exception(pointer, response);
  });
  set_logger([this](const Request& request, const Response& response) { log(request, response); });
  add_pages();
  add_routes();
  bind();
  name_hosts();
}

void HttpServer::bind() {
  const bool any = options_.port == 0;
  errno = 0;
  port_ = any ? bind_to_any_port(options_.host)
              : (bind_to_port(options_.host, options_.port) ? options_.port : -1);
  if (port_ > 0 && ::listen(svr_sock_, kBacklog) == 0) return;
  fail("cannot listen on {} port {}: {}; choose another with --port or --host", options_.host,
       options_.port, errno == 0 ? "no such address" : std::strerror(errno));
}

std::string HttpServer::url() const {
  return fmt::format("http://{}:{}", host_in_url(options_.host), port_);
}

void HttpServer::name_hosts() {
  if (options_.hosts.empty() && !is_loopback(svr_sock_)) return;
  hosts_ = {"localhost", "127.0.0.1", "[::1]", host_in_url(options_.host)};
  for (const std::string& name : options_.hosts) {
    check_name(name);
    hosts_.push_back(host_in_url(name));
  }
}

void HttpServer::serve() { listen_after_bind(); }

// Not httplib's own stop(), which would cut the streams that run. A socket that was shut down
// accepts nothing, and listen_after_bind() returns when all connections have ended.
void HttpServer::stop() {
  stopping_ = true;
  ::shutdown(svr_sock_, SHUT_RDWR);
}

bool HttpServer::process_and_close_socket(socket_t socket) {
  struct Count {
    std::atomic<int>& count;
    const int number;
    ~Count() { --count; }
  } const open{connections_, ++connections_};
  turned_away_.close_old();
  if (open.number > options_.max_connections && !idle_.end_longest()) {
    service_.metrics().rejected("connections");
    turned_away_.add(socket, too_many());
    return true;
  }
  Connection connection(socket, options_.connection);
  while (wait_for_request(connection)) {
    const auto begin_body = [&](Request& request) {
      connection.begin_body();
      request.ranges.clear();
      request.headers.erase("Accept-Encoding");  // compression delays more than it saves
    };
    bool closed = false;
    const bool done =
        process_request(connection, connection.is_closing() || stopping_, closed, begin_body);
    if (!done || closed || connection.is_closing() || stopping_) break;
  }
  return true;
}

bool HttpServer::wait_for_request(Connection& connection) {
  idle_.add(connection.socket());
  const bool has_come = connection.wait_for_request(stopping_);
  idle_.remove(connection.socket());
  return has_come;
}

void HttpServer::add_pages() {
  const std::map<std::string, std::pair<std::string, std::string>> pages = {
      {"/", {"index.html", "text/html; charset=utf-8"}},
      {"/chat.js", {"chat.js", "text/javascript; charset=utf-8"}},
      {"/chat.css", {"chat.css", "text/css; charset=utf-8"}}};
  for (const auto& [path, page] : pages) {
    methods_[path] = "GET";
    Get(path, [text = read_file(options_.pages / page.first), type = page.second](
                  const Request&, Response& response) {
      response.set_header("Content-Security-Policy",
                          "default-src 'none'; script-src 'self'; style-src 'self'; "
                          "connect-src 'self'; img-src data:; base-uri 'none'; "
                          "form-action 'none'; frame-ancestors 'none'");
      response.set_header("X-Content-Type-Options", "nosniff");
      response.set_content(text, type);
    });
  }
}

void HttpServer::add_routes() {
  methods_["/health"] = methods_["/metrics"] = methods_["/v1/models"] = "GET";
  methods_["/v1/completions"] = methods_["/v1/chat/completions"] = "POST";
  Get("/health", [](const Request&, Response& response) {
    response.set_content(R"({"status":"ok"})", "application/json");
  });
  Get("/metrics", [this](const Request&, Response& response) {
    Gauges gauges = service_.engine().gauges();
    gauges.connections = connections_;
    response.set_content(service_.metrics().text(gauges), "text/plain; version=0.0.4");
  });
  Get("/v1/models", [this](const Request&, Response& response) {
    const nlohmann::json model = model_object(service_.name(), service_.created());
    const nlohmann::json list = {{"object", "list"}, {"data", nlohmann::json::array({model})}};
    response.set_content(list.dump(), "application/json");
  });
  Get("/v1/models/([^/]+)", [this](const Request& request, Response& response) {
    if (request.matches[1] != service_.name()) {
      throw ApiError(404, fmt::format("The model '{}' does not exist.", request.matches[1].str()),
                     "model", "model_not_found");
    }
    response.set_content(model_object(service_.name(), service_.created()).dump(),
                         "application/json");
  });
  Post("/v1/completions",
       [this](const Request&, Response& response, const httplib::ContentReader& reader) {
         complete(reader, response, /*is_chat=*/false);
       });
  Post("/v1/chat/completions",
       [this](const Request&, Response& response, const httplib::ContentReader& reader) {
         complete(reader, response, /*is_chat=*/true);
       });
}

// Before anything of a body is read.
httplib::Server::HandlerResponse HttpServer::check_request(const Request& request,
                                                           Response& response) {
  try {
    if (stopping_) throw ApiError(503, "The server is shutting down.", "", "shutting_down");
    if (!hosts_.empty()) check_host(request, hosts_);
    if (request.path.starts_with("/v1/")) check_key(request, options_.api_key);
    const std::string method = method_of(request);
    if (request.method != method && !(method == "GET" && request.method == "HEAD")) {
      response.set_header("Allow", method == "GET" ? "GET, HEAD" : method);
      throw ApiError(405, fmt::format("{} takes {}, not {}.", request.path, method, request.method),
                     "", "method_not_allowed");
    }
    if (method != "POST") check_no_body(request);
    if (method == "POST") check_body(request, options_.connection.body_bytes);
    return HandlerResponse::Unhandled;
  } catch (const ApiError& error) {
    if (error.status == 413) service_.metrics().rejected("body too large");
    set_last_error(error, response);
    return HandlerResponse::Handled;
  }
}

// The only one that the path takes (HEAD is a GET).
std::string HttpServer::method_of(const Request& request) const {
  const auto route = methods_.find(request.path);
  if (route != methods_.end()) return route->second;
  if (request.path.starts_with("/v1/models/") && request.path.size() < 300) return "GET";
  throw ApiError(404,
                 fmt::format("Unknown request URL: {} {}. Known are /v1/completions, "
                             "/v1/chat/completions, /v1/models, /health and /metrics.",
                             request.method, request.path),
                 "", "unknown_url");
}

std::string HttpServer::read_body(const httplib::ContentReader& reader) const {
  std::string body;
  const bool done = reader([&](const char* data, size_t size) {
    body.append(data, size);
    return true;
  });
  if (done) return body;
  if (Connection::current()->trouble() == Connection::Trouble::kTooSlow) {
    throw protocol_error(408, Connection::Trouble::kTooSlow);
  }
  throw ApiError(400, "The body of the request is incomplete.");
}

void HttpServer::complete(const httplib::ContentReader& reader, Response& response, bool is_chat) {
  std::string body;
  try {
    body = read_body(reader);
  } catch (const ApiError& error) {
    return set_last_error(error, response);
  }
  const nlohmann::json json = parse_object(body);
  if (is_chat) {
    const ChatRequest request = parse_chat(json);
    answer_completion(service_, request, service_.prepare(request), is_chat, response);
  } else {
    const CompletionRequest request = parse_completion(json);
    answer_completion(service_, request, service_.prepare(request), is_chat, response);
  }
}

void HttpServer::log(const Request& request, const Response& response) {
  const bool is_known = methods_.contains(request.path);
  service_.metrics().request(is_known ? request.path : "other", response.status,
                             seconds_since(Connection::current()->began()));
}

}  // namespace qnpu::server
