#include "apps/qnpu/learning.h"
#include "apps/qnpu/program.h"

namespace qnpu {

QuantizeSummary quantize_checkpoint(const QuantizeArguments&, Progress&) {
  become_learning_program();
}

LogitsSource float_source(const std::filesystem::path&, const std::string&, int) {
  become_learning_program();
}

}  // namespace qnpu
