#include "apps/qnpu/learning.h"
#include "apps/qnpu/program.h"

namespace qnpu {

void need_learning_program() { become_learning_program(); }

QuantizeSummary quantize_checkpoint(const QuantizeArguments&, Progress&) {
  become_learning_program();
}

LogitsSource float_source(const std::filesystem::path&, const std::string&, int) {
  become_learning_program();
}

LogitsSource simulated_source(std::shared_ptr<const Artifact>, const std::vector<std::string>&,
                              int) {
  become_learning_program();
}

}  // namespace qnpu
