#include "apps/qnpu/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace qnpu {
namespace {

volatile std::sig_atomic_t received = 0;

void remember(int signal) { received = signal; }

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  action.sa_flags = SA_RESTART;  // each write to the pipe sends another one
  ::sigaction(SIGPIPE, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool interrupted() { return received != 0; }

bool output_is_unread() { return received == SIGPIPE; }

void check_interrupted() {
  if (interrupted()) throw Interrupted{received};
}

}  // namespace qnpu
