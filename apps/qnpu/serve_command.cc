#include <fmt/format.h>

#include <cstdlib>
#include <future>
#include <thread>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "base/clock.h"
#include "base/status.h"
#include "io/files.h"
#include "server/http/http_server.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using server::HttpServer;
using server::Service;

constexpr const char* kKeyVariable = "QNPU_API_KEY";

struct Options {
  fs::path artifact;
  server::ServiceOptions service;
  server::HttpOptions http;
  double time_limit = 600;
  double drain = 30;
  double body_mb = 4;
};

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

// A key on the command line is seen by everybody who can list processes.
std::string api_key(const std::string& given) {
  const char* variable = std::getenv(kKeyVariable);
  if (!given.empty()) return given;
  return variable == nullptr ? "" : variable;
}

// Or until nobody serves any more.
void wait_for_interrupt(const std::future<void>& serving) {
  while (!interrupted()) {
    if (serving.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready) return;
  }
}

void drain(Service& service, HttpServer& http, double seconds) {
  http.stop();
  const auto until = Clock::now() + milliseconds(seconds);
  while (!service.engine().is_idle() && Clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  service.engine().cancel_all();
}

void run(Options options) {
  options.http.api_key = api_key(options.http.api_key);
  options.http.pages = find_shared("server/web/index.html").parent_path();
  options.http.connection.body_bytes = static_cast<size_t>(options.body_mb * 1e6);
  options.service.time_limit = milliseconds(options.time_limit);
  Service service(options.artifact, options.service);
  HttpServer http(service, options.http);
  tell("qnpu: {} at {} ({} slots of {} tokens{})\n", service.name(), http.url(),
       options.service.engine.slots, service.engine().longest_prompt(),
       options.http.api_key.empty() ? "" : ", with an API key");
  auto serving = std::async(std::launch::async, [&] { http.serve(); });
  wait_for_interrupt(serving);
  tell("qnpu: stopping; running requests have {} s to end\n", options.drain);
  drain(service, http, options.drain);
  serving.get();
}

void add_engine_options(CLI::App& command, Options& options) {
  server::EngineOptions& engine = options.service.engine;
  command.add_option("--slots", engine.slots, "Sequences that run together")->capture_default_str();
  command
      .add_option("--context", engine.context,
                  "Positions of each slot's KV cache (default: 4096, or fewer where the artifact "
                  "has fewer)")
      ->check(positive_integer());
  command.add_option("--queue", engine.max_queue, "Sequences that may wait for a slot")
      ->check(positive_integer())
      ->capture_default_str();
  add_threads_option(command, engine.threads);
}

void add_http_options(CLI::App& command, Options& options) {
  command.add_option("--host", options.http.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", options.http.port, "0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command
      .add_option("--allow-host", options.http.hosts,
                  "Name that requests may have in their Host header, besides localhost and the "
                  "address; may be given several times")
      ->allow_extra_args(false);
  command.add_option("--name", options.service.name, "The model's name (default: its folder's)");
  command.add_option("--api-key", options.http.api_key,
                     "Clients must send it (better in the environment variable QNPU_API_KEY)");
  command
      .add_option("--connections", options.http.max_connections, "Open at the same time, at most")
      ->check(CLI::Range(1, 900))
      ->capture_default_str();
  command.add_option("--max-body", options.body_mb, "Megabytes of a request, at most")
      ->check(finite_number())
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  command.add_option("--time-limit", options.time_limit, "Seconds for a request, at most")
      ->check(finite_number())
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  command
      .add_option("--drain", options.drain, "Seconds for running requests when the server is ended")
      ->check(finite_number())
      ->check(CLI::Range(0.0, 1e5))
      ->capture_default_str();
}

}  // namespace

void add_serve_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("serve", "Answer requests over HTTP as OpenAI's API does");
  command->group(kUse)->footer(
      "qnpu serve my-model\nQNPU_API_KEY=secret qnpu serve my-model --host 0.0.0.0 --port 8080");
  const auto options = std::make_shared<Options>();
  command->add_option("artifact", options->artifact, "Folder that `qnpu quantize` wrote")
      ->required()
      ->type_name(kFolder);
  add_engine_options(*command, *options);
  add_http_options(*command, *options);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
