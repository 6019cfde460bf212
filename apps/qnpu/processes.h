// More processes of this program that work with it (--processes): the same arguments, and the
// variables by which Workers find each other.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace qnpu {

class Processes {
 public:
  // This one becomes rank 0 of `count`, the others are started. Does nothing for a count of 1, or
  // where WORLD_SIZE is set: then somebody else started this process as one of several.
  explicit Processes(int count);
  ~Processes();  // ends those that still run: they write nothing
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  // Error if one has failed, with its own sentence. Of one that is about to end, as it is when its
  // connection breaks, waits for the end.
  void check(bool about_to_end = false);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct Process {
    pid_t id;
    std::unique_ptr<std::FILE, Close> messages;
    bool running = true;
  };
  void start(int rank);
  void check(size_t index);

  int count_;
  std::vector<Process> others_;  // ranks 1, 2, ...
};

}  // namespace qnpu
