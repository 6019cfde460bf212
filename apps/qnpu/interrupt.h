// Ctrl-C and the like: a signal only sets a flag; long work asks for it between steps and unwinds
// by an exception, so that everything half written is removed on the way out. A second signal ends
// the program at once.
#pragma once

namespace qnpu {

struct Interrupted {
  int signal = 0;
};

// SIGINT, SIGTERM, SIGHUP, and SIGPIPE: whoever read our output is gone. Also makes "file too
// large" an error of write().
void catch_interrupts();
void check_interrupted();  // throws Interrupted
bool interrupted();
bool output_is_unread();  // by SIGPIPE

}  // namespace qnpu
