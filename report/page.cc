// The page: a frame of HTML with the style sheet, the library, the data and the scripts put in.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "io/files.h"
#include "report/assets.h"
#include "report/report.h"

namespace qnpu {
namespace {

using nlohmann::json;

// The frame's places are written {{name}}. One pass: what is put in is not looked at again.
std::string filled(std::string_view frame, const std::map<std::string_view, std::string>& texts) {
  std::string page;
  for (size_t at = 0; at < frame.size();) {
    const size_t open = std::min(frame.find("{{", at), frame.size());
    page += frame.substr(at, open - at);
    if (open == frame.size()) break;
    const size_t close = frame.find("}}", open);
    page += texts.at(frame.substr(open + 2, close - open - 2));
    at = close + 2;
  }
  return page;
}

std::string text_of(const json& facts, const char* key) {
  const json& value = facts.at(key);
  return value.is_string() ? value.get<std::string>() : "";
}

std::string title_of(const json& facts) {
  const std::string model = text_of(facts, "model");
  const json& recipe = facts.at("recipe");
  const std::string name = recipe.is_object() ? recipe.value("name", "") : "";
  return (model.empty() ? "A quantized model" : model) + (name.empty() ? "" : " · " + name);
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

}  // namespace

std::string json_for_script(const json& value) {
  std::string text = json_text(value);
  // All of these can only stand inside strings, where the escapes mean the same.
  const std::pair<const char*, const char*> escapes[] = {{"<", "\\u003c"},
                                                         {">", "\\u003e"},
                                                         {"&", "\\u0026"},
                                                         {"\xe2\x80\xa8", "\\u2028"},
                                                         {"\xe2\x80\xa9", "\\u2029"}};
  for (const auto& [from, to] : escapes) text = replaced(std::move(text), from, to);
  return text;
}

std::string html_escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

json shortened(json value) {
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (!std::isfinite(number)) return nullptr;
    return std::strtod(fmt::format("{:.6g}", number).c_str(), nullptr);
  }
  if (value.is_structured()) {
    for (json& part : value) part = shortened(std::move(part));
  }
  return value;
}

std::string html_report(const ReportInput& first, const ReportInput* other) {
  json artifacts = {report_facts(first)};
  std::string title = title_of(artifacts[0]);
  if (other != nullptr) {
    check_comparable(first, *other);
    artifacts.push_back(report_facts(*other));
    title += " and " + other->name;
  }
  return filled(kReportPage, {{"title", html_escaped(title)},
                              {"style", std::string(kReportStyle)},
                              {"notice", html_escaped(std::string(kReportNotice))},
                              {"library", std::string(kReportLibrary)},
                              {"scripts", std::string(kReportScripts)},
                              {"data", json_for_script(shortened({{"artifacts", artifacts}}))}});
}

}  // namespace qnpu
