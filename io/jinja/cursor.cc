#include "io/jinja/cursor.h"

#include "base/status.h"

namespace qnpu {
namespace {

constexpr size_t kMostTokens = 50'000;
constexpr int kDeepest = 200;  // parts within parts; deeper ones would use up the stack

}  // namespace

JinjaCursor::JinjaCursor(const std::string& source) : tokens_(read_jinja_tokens(source)) {
  if (tokens_.size() > kMostTokens) fail_at("the template is too long");
}

bool JinjaCursor::takes(Kind kind, std::string_view text) {
  const bool found = is(kind, text);
  if (found) take();
  return found;
}

void JinjaCursor::fail_at(const std::string& what) const { fail("line {}: {}", now().line, what); }

void JinjaCursor::expect(Kind kind) {
  if (now().kind != kind) fail_at("the end of a part is expected, not " + described());
  take();
}

void JinjaCursor::expect_sign(std::string_view text) {
  if (!takes_sign(text)) fail_at(fmt::format("{} is expected, not {}", text, described()));
}

void JinjaCursor::expect_name(std::string_view text) {
  if (!takes_name(text)) fail_at(fmt::format("{} is expected, not {}", text, described()));
}

std::string JinjaCursor::expect_any_name() {
  if (now().kind != Kind::kName) fail_at("a name is expected, not " + described());
  return take().text;
}

std::string JinjaCursor::described() const {
  const bool end = now().kind == Kind::kTagEnd || now().kind == Kind::kPrintEnd;
  return end ? "the end of the part" : now().text;
}

JinjaDepth::JinjaDepth(JinjaCursor& cursor) : cursor_(cursor) {
  if (cursor.depth_ >= kDeepest) cursor.fail_at("parts are nested too deeply");
  ++cursor.depth_;
}

}  // namespace qnpu
