// Everything that a session's sites held, row by row, in a form that does not depend on how the
// tokens were cut into calls: two runs are equal exactly if their SiteRows are.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/session.h"

namespace qnpu::testing {

// (site, position of the token) -> its integers: a row; the visible scores of every head; or what
// the token left in a cache.
using SiteRows = std::map<std::pair<int, int>, std::vector<int16_t>>;

// Copies one site's values of one call.
void append_rows(const Graph& graph, const SiteValues& values, SiteRows& rows);

// Runs the tokens in pieces of `piece` with all rows' logits; returns every site's rows.
SiteRows run_and_record(Session& session, std::span<const int32_t> tokens, int piece);

int64_t count_numbers(const SiteRows& rows);

// Name of the first site in which the two differ, with the position; "" if they are equal.
std::string first_difference(const Graph& graph, const SiteRows& a, const SiteRows& b);

}  // namespace qnpu::testing
