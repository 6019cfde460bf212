// The report of a quantized model, or of two side by side: one HTML file that needs nothing else,
// neither network nor other files, to be read (docs/report.md). Pure: data in, text out.
//
// The page holds its data as JSON and draws with D3, both inside the file. Whatever names and texts
// the data holds, they stay data: nothing of them is read as HTML or script.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/artifact.h"

namespace qnpu {

using NamedJson = std::pair<std::string, nlohmann::json>;

struct ReportInput {
  std::string name;                    // what to call it beside another one
  const Artifact* artifact = nullptr;  // its graph and tensors are counted
  nlohmann::json inspected;            // as of `qnpu inspect --json`
  nlohmann::json measured;             // report.json; null: there is none
  std::vector<NamedJson> evaluations;  // as of `qnpu eval --json`, each with a label
  nlohmann::json bench;                // as of `qnpu bench --json`; null: none
};

// What the page draws of one artifact (facts.cc): names, sizes, sites, counts.
nlohmann::json report_facts(const ReportInput& input);

// Error: the two have not one shape of model, so that their sites cannot be compared.
void check_comparable(const ReportInput& first, const ReportInput& other);

// `other` may be null.
std::string html_report(const ReportInput& first, const ReportInput* other);

// ---- parts, tested by themselves ----

// JSON that may stand inside a <script> element: < > & and U+2028, U+2029 as escapes; NaN and
// infinity as null; invalid UTF-8 replaced.
std::string json_for_script(const nlohmann::json& json);

std::string html_escaped(const std::string& text);

// With six significant digits: what a page shows, in a third of the bytes.
nlohmann::json shortened(nlohmann::json json);

}  // namespace qnpu
