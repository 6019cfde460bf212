#include "server/api/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "server/api/fields.h"

namespace qnpu::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::optional<ApiError> refusal(const std::function<void()>& run) {
  try {
    run();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    return error;
  }
  return std::nullopt;
}

json completion(const std::string& more) {
  return json::parse("{\"prompt\": \"a\"" + (more.empty() ? "" : ", " + more) + "}");
}

json chat(const std::string& more) {
  return json::parse("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]" +
                     (more.empty() ? "" : ", " + more) + "}");
}

TEST(Requests, CompletionDefaults) {
  const CompletionRequest request = parse_completion(completion(""));
  EXPECT_EQ(request.prompts.size(), 1);
  EXPECT_EQ(request.prompts[0].text, "a");
  EXPECT_EQ(request.max_tokens, 16);
  EXPECT_EQ(request.sampling.temperature, 1.0);
  EXPECT_EQ(request.choices, 1);
  EXPECT_FALSE(request.seed || request.top_logprobs || request.stream || request.echo);
}

TEST(Requests, Completion) {
  const CompletionRequest request = parse_completion(json::parse(R"({
    "model": "m", "prompt": [[1, 2], [3]], "max_tokens": 0, "echo": true, "logprobs": 5, "n": 2,
    "best_of": 2, "temperature": 0, "top_p": 0.5, "top_k": 7, "seed": -3, "stop": ["x", "\n"],
    "stream": true, "stream_options": {"include_usage": true}, "user": "u", "suffix": null,
    "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0})"));
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.prompts.size(), 2);
  EXPECT_THAT(request.prompts[0].tokens, ElementsAre(1, 2));
  EXPECT_THAT(request.prompts[1].tokens, ElementsAre(3));
  EXPECT_EQ(request.max_tokens, 0);
  EXPECT_EQ(request.top_logprobs, 5);
  EXPECT_EQ(request.choices, 2);
  EXPECT_EQ(request.sampling.top_p, 0.5);
  EXPECT_EQ(request.sampling.top_k, 7);
  EXPECT_EQ(request.seed, static_cast<uint64_t>(-3));
  EXPECT_THAT(request.stops, ElementsAre("x", "\n"));
  EXPECT_TRUE(request.echo && request.stream && request.include_usage);
  EXPECT_THAT(parse_completion(completion("\"stop\": \"y\"")).stops, ElementsAre("y"));
  const json texts = {{"prompt", {"a", "b"}}};
  EXPECT_EQ(parse_completion(texts).prompts[1].text, "b");
  const json ids = {{"prompt", {4, 5}}};
  EXPECT_THAT(parse_completion(ids).prompts.at(0).tokens, ElementsAre(4, 5));
}

TEST(Requests, Chat) {
  const ChatRequest request = parse_chat(json::parse(R"({
    "messages": [{"role": "developer", "content": "s"},
                 {"role": "user", "content": [{"type": "text", "text": "a"},
                                              {"type": "text", "text": "b"}]},
                 {"role": "assistant", "content": "c", "tool_calls": null, "refusal": null}],
    "max_tokens": 9, "max_completion_tokens": 5, "logprobs": true, "top_logprobs": 3,
    "tools": [], "tool_choice": "none", "response_format": {"type": "text"}})"));
  ASSERT_EQ(request.messages.size(), 3);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[1].content, "ab");
  EXPECT_EQ(request.max_tokens, 5);
  EXPECT_EQ(request.top_logprobs, 3);
  EXPECT_FALSE(parse_chat(chat("")).max_tokens);
  EXPECT_FALSE(parse_chat(chat("\"top_logprobs\": 0")).top_logprobs);
  EXPECT_EQ(parse_chat(chat("\"logprobs\": true")).top_logprobs, 0);
}

// Fields, and the one that the refusal names.
TEST(Requests, RefusedCompletions) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"("n": 0)", "n"},
      {R"("n": 17)", "n"},
      {R"("n": 1.5)", "n"},
      {R"("n": true)", "n"},
      {R"("max_tokens": -1)", "max_tokens"},
      {R"("max_tokens": "5")", "max_tokens"},
      {R"("max_tokens": 99999999999999999999)", "max_tokens"},
      {R"("temperature": -0.1)", "temperature"},
      {R"("temperature": 2.1)", "temperature"},
      {R"("temperature": 1e308)", "temperature"},
      {R"("temperature": "hot")", "temperature"},
      {R"("top_p": 1.01)", "top_p"},
      {R"("top_k": -1)", "top_k"},
      {R"("logprobs": 21)", "logprobs"},
      {R"("logprobs": true)", "logprobs"},
      {R"("seed": 1.5)", "seed"},
      {R"("seed": 1e30)", "seed"},
      {R"("stop": "")", "stop"},
      {R"("stop": [1])", "stop"},
      {R"("stop": {"a": 1})", "stop"},
      {R"("stream": 1)", "stream"},
      {R"("stream_options": {"include_usage": true})", "stream_options"},
      {R"("stream": true, "stream_options": 3)", "stream_options"},
      {R"("stream": true, "stream_options": {"x": 3})", "stream_options.x"},
      {R"("model": 3)", "model"},
      {R"("echo": "yes")", "echo"},
      {R"("suffix": "z")", "suffix"},
      {R"("best_of": 3)", "best_of"},
      {R"("logit_bias": {"5": 1})", "logit_bias"},
      {R"("presence_penalty": 0.5)", "presence_penalty"},
      {R"("frequency_penalty": "x")", "frequency_penalty"},
      {R"("messages": [])", "messages"},
      {R"("max_token": 5)", "max_token"}};
  for (const auto& [more, param] : cases) {
    const auto error = refusal([&] { parse_completion(completion(more)); });
    ASSERT_TRUE(error) << more;
    EXPECT_EQ(error->param, param) << more << ": " << error->what();
    EXPECT_THAT(error->what(), HasSubstr(param));
  }
}

TEST(Requests, RefusedPrompts) {
  for (const char* prompt :
       {"[]", "[[]]", "[1, \"a\"]", "[\"a\", 1]", "[[1], 2]", "3", "{}", "null", "[1.5]", "[-1]",
        "[4294967296]", "[[1, null]]", "[[[1]]]", "[true]"}) {
    const json body = json::parse(fmt::format("{{\"prompt\": {}}}", prompt));
    const auto error = refusal([&] { parse_completion(body); });
    ASSERT_TRUE(error) << prompt;
    EXPECT_EQ(error->param, "prompt") << prompt;
  }
  EXPECT_TRUE(refusal([] { parse_completion(json::object()); }));
}

TEST(Requests, RefusedChats) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"("top_logprobs": 2)", "top_logprobs"},
      {R"("logprobs": 3)", "logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("tools": [{"type": "function"}])", "tools"},
      {R"("tool_choice": "auto")", "tool_choice"},
      {R"("response_format": {"type": "json_object"})", "response_format"},
      {R"("reasoning_effort": "low")", "reasoning_effort"},
      {R"("modalities": ["audio"])", "modalities"},
      {R"("prompt": "a")", "prompt"}};
  for (const auto& [more, param] : cases) {
    const auto error = refusal([&] { parse_chat(chat(more)); });
    ASSERT_TRUE(error) << more;
    EXPECT_EQ(error->param, param) << more;
  }
  const std::vector<std::pair<const char*, const char*>> messages = {
      {"[]", "messages"},
      {"\"a\"", "messages"},
      {"[3]", "messages[0]"},
      {R"([{"content": "a"}])", "messages[0].role"},
      {R"([{"role": "tool", "content": "a"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": 3}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url"}]}])", "messages[0].content[0].type"},
      {R"([{"role": "user", "content": "a", "name": "b"}])", "messages[0].name"},
      {R"([{"role": "user", "content": "a", "x": 1}])", "messages[0].x"}};
  for (const auto& [list, param] : messages) {
    const json body = json::parse(fmt::format("{{\"messages\": {}}}", list));
    const auto error = refusal([&] { parse_chat(body); });
    ASSERT_TRUE(error) << list;
    EXPECT_EQ(error->param, param) << list;
  }
}

TEST(Requests, Bodies) {
  const std::string deep = std::string(100000, '['), closed = deep + std::string(100000, ']');
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("3"),
        std::string("{\"a\": NaN}"), std::string("{\"a\": 1e999}"), std::string("{'a': 1}"),
        std::string("{\"a\": \"\xff\"}"), std::string("{\"a\": 1} x"), std::string("\0", 1), deep,
        closed, "{\"prompt\": " + closed + "}"}) {
    EXPECT_TRUE(refusal([&] { parse_object(body); })) << body.substr(0, 30);
  }
  EXPECT_EQ(parse_object("{\"a\": 1}"), json({{"a", 1}}));
}

TEST(ApiErrors, Form) {
  const json body = json::parse(error_body({429, "busy \xff", "p", "c"}));
  EXPECT_EQ(body, json({{"error",
                         {{"message", "busy \ufffd"},
                          {"type", "rate_limit_error"},
                          {"param", "p"},
                          {"code", "c"}}}}));
  EXPECT_TRUE(json::parse(error_body({400, "m"}))["error"]["param"].is_null());
}

}  // namespace
}  // namespace qnpu::server
