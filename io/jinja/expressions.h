// Reads a template's expressions, from what binds least to what binds most.
#pragma once

#include "io/jinja/cursor.h"
#include "io/jinja/parser.h"

namespace qnpu {

// Each takes what it reads; an error names the line. "a, b" is a list.
JinjaExpression read_jinja_tuple(JinjaCursor& cursor);
JinjaExpression read_jinja_expression(JinjaCursor& cursor);

// Without "a if b else c": a condition behind it is left standing.
JinjaExpression read_jinja_condition(JinjaCursor& cursor);

}  // namespace qnpu
