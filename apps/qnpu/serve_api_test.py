"""What `qnpu serve` answers its clients, by the openai package, held against `qnpu generate` and `qnpu eval`.

    serve_api_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import concurrent.futures
import json
import math
import random
import re

import openai

from program_testing import MODEL, SOURCE, TEXT, main, run
from serve_testing import CONTEXT, PROMPT, Case


class Padded(Case):
    """A model with more ids than its tokenizer has tokens."""

    MODEL = SOURCE / "testdata/models/tiny-qwen2"
    LARGEST = 287

    def test_ids_without_a_token(self):
        for prompt in ([1, self.LARGEST], [self.LARGEST]):
            for stream in (False, True):
                with self.assertRaisesRegex(openai.BadRequestError, "287, which is no token"):
                    self.complete(prompt, stream=stream)

    def test_answers_that_hold_such_ids(self):
        empty = 0
        for seed in range(12):
            wished = {"max_tokens": 60, "temperature": 2, "seed": seed, "logprobs": 20}
            whole = self.complete(**wished).choices[0]
            parts = [x.choices[0] for x in self.complete(stream=True, **wished)]
            self.assertEqual("".join(x.text for x in parts), whole.text)
            empty += whole.logprobs.tokens.count("")
        self.assertGreater(empty, 0)
        self.assertTrue(self.server.is_idle())


class Api(Case):
    """What the openai package gets, against `qnpu generate` and `qnpu eval`."""

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").object, "model")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_completion(self):
        wanted = self.generate()
        got = self.complete()
        self.assertEqual(got.choices[0].text, wanted["text"])
        self.assertEqual(got.usage.prompt_tokens, wanted["prompt_tokens"])
        self.assertEqual(got.object, "text_completion")
        ended = wanted["stop_reason"] == "end token"
        self.assertEqual(got.choices[0].finish_reason, "stop" if ended else "length")
        self.assertEqual(got.usage.completion_tokens, wanted["tokens"] + ended)

    def test_seeds(self):
        sampled = {"temperature": 1.5, "top_p": 0.9}
        for seed in (1, 2, 3):
            wanted = self.generate(PROMPT, "--temperature", 1.5, "--top-p", 0.9, "--seed", seed)
            self.assertEqual(self.complete(seed=seed, **sampled).choices[0].text, wanted["text"])
        choices = self.complete(seed=1, n=3, **sampled).choices
        self.assertEqual([c.index for c in choices], [0, 1, 2])
        self.assertEqual([c.text for c in choices],
                         [self.complete(seed=s, **sampled).choices[0].text for s in (1, 2, 3)])
        self.assertGreater(len({self.complete(temperature=2).choices[0].text for _ in range(4)}), 1)

    def negative_log_likelihood(self, text):
        """Of all tokens but the first, and how many tokens there are: by `qnpu eval`."""
        path = self.folder / "one.txt"
        path.write_text(text)
        command = ("eval", self.artifact, "--json", "--text", path, "--length")
        count = int(re.search(r"has (\d+) tokens", run(*command, 10000).stderr)[1])
        values = json.loads(run(*command, count).stdout)
        return math.log(values["perplexity"]) * values["tokens"], count

    def test_echo_and_logprobs(self):
        text = TEXT.read_text()[:400]
        wanted, count = self.negative_log_likelihood(text)
        choice = self.complete(text, echo=True, logprobs=3, max_tokens=0).choices[0]
        self.assertEqual(choice.text, text)
        self.assertEqual(len(choice.logprobs.tokens), count)
        self.assertEqual("".join(choice.logprobs.tokens), text)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertAlmostEqual(-sum(choice.logprobs.token_logprobs[1:]), wanted, places=3)
        places = zip(choice.logprobs.tokens, choice.logprobs.token_logprobs,
                     choice.logprobs.top_logprobs, choice.logprobs.text_offset)
        for i, (token, logprob, top, offset) in enumerate(places):
            self.assertEqual(text[offset:offset + len(token)], token)
            if i == 0:
                continue
            self.assertEqual(top[token], logprob)
            self.assertIn(len(top), (3, 4))
            self.assertEqual(len(top) == 4, logprob < sorted(top.values())[-3])
        # With a token behind it: the same, and what greedy decoding takes is the likeliest.
        more = self.complete(text, echo=True, logprobs=1, max_tokens=1).choices[0].logprobs
        self.assertEqual(more.token_logprobs[:-1], choice.logprobs.token_logprobs)
        self.assertEqual(more.token_logprobs[-1], max(more.top_logprobs[-1].values()))

    def test_prompts_as_tokens_and_lists(self):
        with_tokens = self.complete(logprobs=0, echo=True).choices[0]
        result = run("generate", self.artifact, "--prompt", PROMPT, "--tokens", 1, "--json")
        self.assertEqual(result.returncode, 0)
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(self.artifact / "tokenizer.json"))
        ids = tokenizer.encode(PROMPT).ids
        self.assertEqual(self.complete(ids, logprobs=0, echo=True).choices[0], with_tokens)
        other = tokenizer.encode("The town is").ids
        for prompts in ([PROMPT, "The town is"], [ids, other]):
            got = self.complete(prompts, n=2)
            self.assertEqual([c.index for c in got.choices], [0, 1, 2, 3])
            alone = [self.complete(p).choices[0].text for p in prompts]
            self.assertEqual([c.text for c in got.choices], [alone[0]] * 2 + [alone[1]] * 2)
            self.assertEqual(got.usage.prompt_tokens, len(ids) + len(other))

    def collect(self, stream):
        """The choices of a stream: text, finish_reason, logprobs."""
        choices, usage = {}, None
        for chunk in stream:
            usage = chunk.usage or usage
            for c in chunk.choices:
                entry = choices.setdefault(c.index, ["", None, []])
                is_chat = hasattr(c, "delta")
                entry[0] += (c.delta.content or "") if is_chat else c.text
                entry[1] = c.finish_reason or entry[1]
                if c.logprobs:
                    entry[2] += c.logprobs.content if is_chat else c.logprobs.token_logprobs
        return choices, usage

    def test_streams(self):
        for options in ({}, {"logprobs": 2, "echo": True}, {"n": 3, "temperature": 1, "seed": 5},
                        {"echo": True}, {"stop": [" the", "e"], "logprobs": 0}):
            whole = self.complete(**options)
            choices, usage = self.collect(
                self.complete(stream=True, stream_options={"include_usage": True}, **options))
            self.assertEqual(usage, whole.usage, options)
            self.assertEqual(len(choices), len(whole.choices))
            for c in whole.choices:
                logprobs = c.logprobs.token_logprobs if c.logprobs else []
                self.assertEqual(choices[c.index], [c.text, c.finish_reason, logprobs], options)
        _, usage = self.collect(self.complete(stream=True))
        self.assertIsNone(usage)

    def test_stop(self):
        text = self.complete(max_tokens=60).choices[0].text
        draw = random.Random(1)
        for _ in range(12):  # anywhere in the text, across the borders of tokens
            begin = draw.randrange(1, len(text) - 4)
            stop = text[begin:begin + draw.randrange(1, 5)]
            got = self.complete(max_tokens=60, stop=["not in it", stop]).choices[0]
            self.assertEqual(got.text, text[:text.find(stop)])
            self.assertEqual(got.finish_reason, "stop")

    def test_chat(self):
        question = "Where does the river run?"
        wanted = self.generate(question, "--chat", "--system", "Be short.")
        messages = [{"role": "system", "content": "Be short."},
                    {"role": "user", "content": [{"type": "text", "text": question}]}]
        got = self.client.chat.completions.create(
            model="tiny", messages=messages, max_completion_tokens=24, temperature=0,
            logprobs=True, top_logprobs=2)
        choice = got.choices[0]
        self.assertEqual(choice.message.content, wanted["text"])
        self.assertEqual(choice.message.role, "assistant")
        self.assertEqual(got.usage.prompt_tokens, wanted["prompt_tokens"])
        self.assertEqual(len(choice.logprobs.content), got.usage.completion_tokens)
        for token in choice.logprobs.content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.top_logprobs[0].logprob, token.logprob)  # greedy
            self.assertGreaterEqual(token.logprob, token.top_logprobs[1].logprob)
        stream = self.client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=24, temperature=0, stream=True,
            logprobs=True, top_logprobs=2, stream_options={"include_usage": True})
        choices, usage = self.collect(stream)
        self.assertEqual(usage, got.usage)
        self.assertEqual(choices[0], [choice.message.content, choice.finish_reason,
                                      choice.logprobs.content])

    def test_a_long_answer_ends_with_the_context(self):
        answers = (self.complete(max_tokens=10 ** 6, temperature=1.2, seed=seed) for seed in range(100))
        got = next(x for x in answers if x.choices[0].finish_reason == "length")
        self.assertEqual(got.usage.total_tokens, CONTEXT + 1)  # the last one needs no place

    def test_errors(self):
        cases = [
            (openai.NotFoundError, "model", {"model": "gpt-4"}),
            (openai.BadRequestError, "temperature", {"temperature": 3}),
            (openai.BadRequestError, "prompt", {"prompt": []}),
            (openai.BadRequestError, "prompt", {"prompt": ""}),
            (openai.BadRequestError, "prompt", {"prompt": [268]}),
            (openai.BadRequestError, "prompt", {"prompt": [1] * (CONTEXT + 1)}),
            (openai.BadRequestError, "suffix", {"suffix": "x"}),
            (openai.BadRequestError, "colour", {"extra_body": {"colour": 1}})]
        for kind, param, options in cases:
            with self.assertRaises(kind) as caught:
                self.complete(**options)
            self.assertEqual(caught.exception.param, param)
            self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete([1] * 2000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_many_at_once_get_what_each_gets_alone(self):
        jobs = [{"prompt": TEXT.read_text()[i:i + 20 + 9 * i], "seed": i, "temperature": i % 2,
                 "max_tokens": 5 + i} for i in range(24)]
        alone = [self.complete(**job).choices[0].text for job in jobs]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            together = list(pool.map(lambda job: self.complete(**job).choices[0].text, jobs))
        self.assertEqual(together, alone)

    def test_health_and_metrics(self):
        self.assertEqual(json.loads(self.server.get("/health")), {"status": "ok"})
        before = self.server.metric("qnpu_generated_tokens_total")
        tokens = self.complete().usage.completion_tokens
        self.assertEqual(self.server.metric("qnpu_generated_tokens_total"), before + tokens)
        self.assertTrue(self.server.is_idle())


if __name__ == "__main__":
    main()
