// Chat templates of checkpoints: the part of the Jinja language that they are written in, with the
// settings and additions of transformers' apply_chat_template. What is not known is refused, never
// guessed. Nothing a template does reaches beyond the text that it makes: it can read no file and
// no clock, and its steps are limited.
#pragma once

#include <string>
#include <vector>

#include "io/jinja/parser.h"

namespace qnpu {

// The text that the template makes of `variables`, an object. Error naming the line: a part that is
// not supported, an operation that makes no sense for its values, a template that raises one itself
// (raise_exception). Today's date is not to be had: strftime_now is not defined.
std::string render_jinja(const std::vector<JinjaStatement>& statements,
                         const JinjaValue& variables);

}  // namespace qnpu
