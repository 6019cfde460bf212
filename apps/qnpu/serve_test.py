"""Runs `qnpu serve` on a tiny model, as its clients do: the openai package, bad ones, a browser.

    serve_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]    PROGRAM: qnpu, with qnpu-learn beside it
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import openai

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
MODEL = SOURCE / "testdata/models/tiny-llama"
TEXT = SOURCE / "testdata/goldens/prose.txt"
PROMPT = "In the morning the river runs through the"
CONTEXT = 512


def run(*arguments, **options):
    command = [str(PROGRAM)] + [str(a) for a in arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


class Server:
    """A running `qnpu serve`, on a port of its own choice."""

    def __init__(self, artifact, *arguments, **environment):
        command = [PROGRAM, "serve", artifact, "--port", 0, "--name", "tiny", "--threads", 1]
        self.process = subprocess.Popen(
            [str(x) for x in (*command, *arguments)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment})
        line = self.process.stderr.readline()
        match = re.search(r"http://([\d.]+):(\d+)", line)
        if match is None:
            raise AssertionError(line + self.process.stderr.read())
        self.port = int(match[2])
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, **options):
        options = {"api_key": "none", "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=self.url + "/v1", **options)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return response.read().decode()

    def metric(self, name):
        return float(re.search(rf"^{re.escape(name)} (.*)$", self.get("/metrics"), re.M)[1])

    def is_idle(self):
        return self.metric("qnpu_slots_used") == 0 and self.metric("qnpu_queue_length") == 0

    def stop(self):
        """Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process.stderr.close()
        return code


def eventually(condition, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Case(unittest.TestCase):
    ARGUMENTS = ()
    MODEL = MODEL

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.artifact = cls.folder / "artifact"
        result = run("quantize", "--model", cls.MODEL, "--recipe", "w8a8kv8", "--calib", TEXT, "--out",
                     cls.artifact, "--samples", 4, "--length", 64)
        assert result.returncode == 0, result.stderr
        cls.server = Server(cls.artifact, *cls.ARGUMENTS)
        cls.addClassCleanup(cls.server.stop)
        cls.client = cls.server.client()

    def start(self, *arguments, artifact=None, **environment):
        server = Server(artifact or self.artifact, *arguments, **environment)
        self.addCleanup(server.stop)
        return server

    def complete(self, prompt=PROMPT, client=None, **options):
        options = {"model": "tiny", "temperature": 0, "max_tokens": 24, **options}
        return (client or self.client).completions.create(prompt=prompt, **options)

    def chat(self, content="Where does the river run?", client=None, **options):
        options = {"model": "tiny", "temperature": 0, "max_tokens": 24, **options}
        return (client or self.client).chat.completions.create(
            messages=[{"role": "user", "content": content}], **options)

    def generate(self, prompt=PROMPT, *arguments):
        result = run("generate", self.artifact, "--prompt", prompt, "--tokens", 24, "--json",
                     *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)


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


class Limits(Case):
    ARGUMENTS = ("--slots", 1, "--queue", 256)
    # The tiny model says 50000 tokens in a second: work for about one.
    LONG = {"prompt": [PROMPT] * 16, "n": 16, "max_tokens": 480, "temperature": 2}
    ALL = 256 * 190  # tokens that it says in all, about: an end token comes by chance

    def test_full_queue(self):
        # More choices than can ever wait are a mistake, more than can wait now are bad luck.
        with self.assertRaises(openai.BadRequestError):
            self.complete([PROMPT] * 17, n=16)
        stream = self.complete(stream=True, **self.LONG)
        next(stream)
        with self.assertRaises(openai.RateLimitError) as caught:
            self.complete([PROMPT] * 15, n=16)
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.assertEqual(self.server.metric('qnpu_rejected_total{reason="queue full"}'), 1)
        self.assertEqual(sum(c.finish_reason is not None for x in stream for c in x.choices), 256)

    def test_who_goes_away_frees_his_slot(self):
        for stream in (True, False):
            for half in (True, False):
                self.assertTrue(eventually(self.server.is_idle))
                before = self.server.metric("qnpu_generated_tokens_total")
                body = json.dumps({**self.LONG, "stream": stream}).encode()
                with socket.create_connection(("127.0.0.1", self.server.port)) as s:
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                              b"Content-Type: application/json\r\nContent-Length: "
                              + str(len(body)).encode() + b"\r\n\r\n" + body)
                    self.assertTrue(eventually(
                        lambda: self.server.metric("qnpu_generated_tokens_total") > before))
                    if half:
                        s.shutdown(socket.SHUT_WR)
                        self.assertTrue(eventually(self.server.is_idle, 3))
                self.assertTrue(eventually(self.server.is_idle, 3))
                done = self.server.metric("qnpu_generated_tokens_total") - before
                self.assertLess(done, self.ALL / 2)  # and was not just quick
        self.assertEqual(self.complete().choices[0].text, self.generate()["text"])

    def test_time_limit(self):
        server = self.start("--time-limit", 0.05, "--slots", 1)
        client = server.client()
        with self.assertRaises(openai.InternalServerError) as caught:
            self.complete(client=client, **self.LONG)
        self.assertEqual(caught.exception.status_code, 504)
        self.assertEqual(caught.exception.code, "timeout")
        with self.assertRaises(openai.APIError):  # in the stream
            for _ in self.complete(client=client, stream=True, **self.LONG):
                pass
        self.assertTrue(eventually(server.is_idle))

    def test_keys(self):
        server = self.start(QNPU_API_KEY="sesame")
        self.assertEqual([m.id for m in server.client(api_key="sesame").models.list()], ["tiny"])
        self.complete(client=server.client(api_key="sesame"))
        for key in ("sesam", "sesames", "SESAME", "x", "\x7f"):
            with self.assertRaises(openai.AuthenticationError) as caught:
                self.complete(client=server.client(api_key=key))
            self.assertEqual(caught.exception.code, "invalid_api_key")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            server.get("/v1/models")
        self.assertEqual(caught.exception.code, 401)
        caught.exception.close()
        self.assertIn("ok", server.get("/health"))

    def test_connections(self):
        server = self.start("--connections", 5)
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                s = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                s.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                self.assertIn(b"200", s.recv(1000))
            with self.assertRaises(urllib.error.HTTPError) as caught:
                server.get("/health")
            self.assertEqual(caught.exception.code, 503)
            self.assertIn("error", json.loads(caught.exception.read()))
            caught.exception.close()
        self.assertTrue(eventually(lambda: self.succeeds(server)))

    def succeeds(self, server):
        with contextlib.suppress(urllib.error.HTTPError):
            return "ok" in server.get("/health")
        return False

    def test_stopping(self):
        wanted = [c.text for c in self.complete(seed=3, **self.LONG).choices]
        for number in (signal.SIGINT, signal.SIGTERM):
            server = self.start()
            stream = self.complete(client=server.client(), stream=True, seed=3, **self.LONG)
            texts = ["" for _ in wanted]
            first = next(stream).choices[0]
            texts[first.index] += first.text
            server.process.send_signal(number)
            self.assertTrue(eventually(lambda: not self.accepts(server)))
            for chunk in stream:
                texts[chunk.choices[0].index] += chunk.choices[0].text
            self.assertEqual(texts, wanted)
            self.assertEqual(server.process.wait(timeout=30), 0)

    def accepts(self, server):
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        except OSError:
            return False
        return True

    def test_stopping_does_not_wait_for_ever(self):
        server = self.start("--drain", 0.1, "--slots", 1)
        stream = self.complete(client=server.client(), stream=True, **self.LONG)
        next(stream)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with self.assertRaises(openai.APIError):
            list(stream)
        self.assertEqual(server.process.wait(timeout=30), 0)
        self.assertLess(time.monotonic() - start, 5)

    def test_commands_that_cannot_be(self):
        for arguments, words in (
                (("--port", self.server.port), (self.server.port, "--port")),
                (("--host", "192.0.2.1"), ("192.0.2.1", "--host")),
                (("--slots", 0), ("0 slots",)), (("--context", 100000), ("100000",))):
            result = run("serve", self.artifact, *arguments)
            self.assertEqual(result.returncode, 1)
            for word in ("qnpu: error: ", *words):
                self.assertIn(str(word), result.stderr)

    def test_a_model_without_a_template(self):
        artifact = pathlib.Path(shutil.copytree(self.artifact, self.folder / "no-template"))
        config = json.loads((artifact / "tokenizer_config.json").read_text())
        del config["chat_template"]
        (artifact / "tokenizer_config.json").write_text(json.dumps(config))
        server = self.start(artifact=artifact)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(client=server.client())
        self.assertIn("no chat template", str(caught.exception))


class Bad(Case):
    """Whatever comes over the wire, the server answers with the right status or hangs up, and then
    still says what it said before."""

    ARGUMENTS = ("--max-body", 0.1)
    GOOD = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}

    def setUp(self):
        self.right = self.complete().choices[0].text

    def tearDown(self):
        self.assertIsNone(self.server.process.poll())
        self.assertTrue(eventually(self.server.is_idle))
        self.assertEqual(self.complete().choices[0].text, self.right)

    def send(self, data, *more, shut=True, timeout=20):
        """(status, JSON) of the answer; (None, None) if there was none."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout) as s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(data)
                for part in more:
                    time.sleep(0.05)
                    s.sendall(part)
            answer = b""
            try:
                while chunk := s.recv(65536):
                    answer += chunk
                    head, _, body = answer.partition(b"\r\n\r\n")
                    length = re.search(rb"Content-Length: (\d+)", head)
                    if length and len(body) >= int(length[1]):
                        break
            except ConnectionResetError:
                pass
        if not answer:
            return None, None
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def post(self, body, path="/v1/completions", headers=(), **options):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json",
                 f"Content-Length: {len(body)}", *headers]
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body, **options)

    def assert_refused(self, answer, *statuses):
        status, body = answer
        self.assertIn(status, statuses)
        if status is None:
            return
        self.assertEqual(set(body), {"error"})
        self.assertEqual(set(body["error"]), {"message", "type", "param", "code"})
        self.assertTrue(body["error"]["message"])

    def test_bodies(self):
        good = json.dumps(self.GOOD).encode()
        self.assertEqual(self.post(good)[0], 200)
        deep = b'{"prompt": ' + b"[" * 40000 + b"]" * 40000 + b"}"
        for body in (b"", b"x", b"[]", b"null", b"{", good[:-1], good + b"x", b"\xff" + good, b"\0",
                     b'{"prompt": "\xff\xfe"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": NaN}',
                     b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "top_p": Infinity}',
                     b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "\\ud800"}',
                     b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", deep,
                     b'{"a":' * 10000 + b"1" + b"}" * 10000):
            self.assert_refused(self.post(body), 400)
        self.assert_refused(self.post({**self.GOOD, "prompt": "a" * 99000}), 400)
        self.assert_refused(self.post({**self.GOOD, "prompt": "a" * 110000}), 413)

    def test_every_beginning_of_a_body(self):
        good = json.dumps(self.GOOD).encode()
        for length in range(len(good)):
            self.assert_refused(self.post(good[:length]), 400)

    def test_changed_bodies(self):
        """Random bytes of a good body changed: a 400, or an answer to what is still a request."""
        draw = random.Random(7)
        good = json.dumps({**self.GOOD, "stop": ["x"], "seed": 1, "logprobs": 2}).encode()
        refused = 0
        for _ in range(300):
            body = bytearray(good)
            for _ in range(draw.randrange(1, 4)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            status, answer = self.post(bytes(body))
            self.assertIn(status, (200, 400))
            refused += status == 400
            self.assertEqual("error" in answer, status == 400)
        self.assertGreater(refused, 100)

    def test_lengths(self):
        good = json.dumps(self.GOOD).encode()

        def with_headers(*lines):
            head = "\r\n".join(["POST /v1/completions HTTP/1.1", "Content-Type: application/json",
                                *lines])
            return head.encode() + b"\r\n\r\n"

        size = len(good)
        self.assert_refused(self.send(with_headers() + good), 411)
        for length in ("x", "-1", "1e3", "0x10", f"{size}, {size}", "9" * 30):
            self.assert_refused(self.send(with_headers(f"Content-Length: {length}") + good), 400)
        two = (f"Content-Length: {size}", f"Content-Length: {size + 1}")
        self.assert_refused(self.send(with_headers(*two) + good), 400)
        both = (f"Content-Length: {size}", "Transfer-Encoding: chunked")
        self.assert_refused(self.send(with_headers(*both) + good), 400)
        for encoding in ("gzip", "chunked", "x"):
            refused = self.send(with_headers(f"Transfer-Encoding: {encoding}") + b"5\r\nabcde\r\n")
            self.assert_refused(refused, 411)
        self.assert_refused(self.send(with_headers("Content-Length: 999999999999") + good), 413)
        within = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        for line in (f"Content-Length: {len(within)}", "Transfer-Encoding: chunked"):
            head = f"GET /health HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode()
            self.assert_refused(self.send(head + within), 400)
        self.assert_refused(self.send(with_headers(f"Content-Length: {size - 1}") + good), 400)
        self.assert_refused(self.send(with_headers("Content-Length: 0")), 400)

    def test_truncated_and_half_closed(self):
        good = json.dumps(self.GOOD).encode()
        head = (b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(good))
        request = head + good
        for length in range(0, len(request), 7):
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
                s.sendall(request[:length])
                s.shutdown(socket.SHUT_WR)
                answer = s.recv(65536)
                if answer:
                    self.assertIn(b" 400 ", answer.split(b"\r\n")[0])
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
                s.sendall(request[:length])  # and gone

    def test_heads(self):
        for head, *statuses in (
                (b"\r\n\r\n", 400), (b"GET\r\n\r\n", 400), (b"GET / HTTP/3.0\r\n\r\n", 400),
                (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
                (b"HELLO / HTTP/1.1\r\n\r\n", 400), (b"\0\0\0\0\r\n\r\n", 400),
                (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
                (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400, 431),
                (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n", 431),
                (b"GET /" + b"a" * 100000, 414, None), (b"a" * 200000, 414, None),
                (b"GET /metrics HTTP/1.1\r\nRange: bytes=z\r\n\r\n", 416)):
            self.assert_refused(self.send(head), *statuses)

    def test_paths(self):
        for path in ("/v1", "/v1/", "/v1/completions/", "//v1/completions", "/../../etc/passwd",
                     "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/chat.js/../../x",
                     "/v1/../health", "/%00", "/health%00", "/v1/models/", "/v1/models/a/b",
                     "/V1/completions", "/favicon.ico", "/%ff%fe", "/v1/models/" + "a" * 1000,
                     "/v1/models/..%2f..%2fx"):
            self.assert_refused(self.send(f"GET {path} HTTP/1.1\r\n\r\n".encode()), 404)
            self.assert_refused(self.post(self.GOOD, path), 404, 405)
        for method, path in (("GET", "/v1/completions"), ("POST", "/health"), ("PUT", "/v1/models"),
                             ("DELETE", "/v1/models/tiny"), ("PATCH", "/"), ("OPTIONS", "/"),
                             ("TRACE", "/"), ("CONNECT", "/")):
            self.assert_refused(self.send(f"{method} {path} HTTP/1.1\r\n\r\n".encode()), 405)

    def test_types(self):
        good = json.dumps(self.GOOD).encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded",
                     "multipart/form-data; boundary=x", ""):
            head = ("POST /v1/completions HTTP/1.1\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
                    + f"Content-Length: {len(good)}\r\n\r\n")
            self.assert_refused(self.send(head.encode() + good), 415)
        self.assert_refused(self.post(good, headers=("Content-Encoding: gzip",)), 415)

    def test_slow_clients(self):
        """Each byte in time, but never all of them; others are served meanwhile."""
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(socket.create_connection(("127.0.0.1", self.server.port)))
                    for _ in range(40)]
            start = time.monotonic()
            alive = list(slow)
            while alive and time.monotonic() - start < 20:
                for s in list(alive):
                    try:
                        s.sendall(b"G")
                    except OSError:
                        alive.remove(s)
                if time.monotonic() - start < 3:
                    self.assertEqual(self.complete().choices[0].text, self.right)
                time.sleep(0.25)
            self.assertEqual(alive, [])
            self.assertLess(time.monotonic() - start, 15)  # 10 are allowed

    def test_who_does_not_read(self):
        """An answer that nobody takes holds up nobody else."""
        body = json.dumps({**self.GOOD, "n": 16, "max_tokens": 480, "logprobs": 20, "stream": True,
                           "temperature": 2}).encode()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", self.server.port))
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.assertEqual(self.complete().choices[0].text, self.right)
            self.assertTrue(eventually(self.server.is_idle, 30))  # computed, though not read

    def test_one_connection_after_another_error(self):
        """Where the body was read, an error does not end the connection."""
        good = json.dumps(self.GOOD).encode()
        request = (b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
            s.sendall(request % 2 + b"{}" + request % len(good) + good)  # pipelined
            answer = b""
            while answer.count(b"HTTP/1.1 ") < 2 or not answer.endswith(b"}"):
                answer += s.recv(65536)
            self.assertIn(b"HTTP/1.1 400", answer)
            self.assertIn(b"HTTP/1.1 200", answer)


class Page(Case):
    """The chat page in Chromium."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        from playwright.sync_api import sync_playwright
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = playwright.chromium.launch(executable_path="/usr/bin/chromium",
                                                 args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)

    def open(self, server=None, **options):
        self.page = self.browser.new_page(**options)
        self.addCleanup(self.page.close)
        self.troubles, self.requests = [], []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto((server or self.server).url + "/")
        return self.page

    def ask(self, text):
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def wait_for_answer(self):
        self.page.wait_for_selector("#send", state="visible")

    def test_an_answer(self):
        page = self.open()
        page.get_by_role("heading", name="tiny").wait_for()
        page.click("summary")
        page.fill("#temperature", "0")
        page.fill("#max-tokens", "24")
        page.click("summary")
        self.ask("Where does the river run?")
        self.wait_for_answer()
        first = self.chat().choices[0].message.content
        self.assertEqual(page.inner_text(".assistant").strip(), first.strip())
        self.assertRegex(page.inner_text("#status"), r"^\d+ tokens, [\d.]+ tokens/s$")
        self.ask("And <b>then</b>?")
        self.wait_for_answer()
        wanted = self.client.chat.completions.create(
            model="tiny", temperature=0, max_tokens=24,
            messages=[{"role": "user", "content": "Where does the river run?"},
                      {"role": "assistant", "content": first},
                      {"role": "user", "content": "And <b>then</b>?"}])
        answers = page.locator(".assistant").all_inner_texts()
        self.assertEqual(answers[1].strip(), wanted.choices[0].message.content.strip())
        self.assertEqual(page.locator(".user").last.inner_text(), "And <b>then</b>?")  # text, no HTML
        page.click("#clear")
        self.assertEqual(page.locator(".message").count(), 0)
        self.assertEqual(self.troubles, [])
        self.assertTrue(all(url.startswith(self.server.url) for url in self.requests), self.requests)
        self.assertGreaterEqual(len(self.requests), 6)

    def test_stop(self):
        """In the middle of an answer that others make slow."""
        server = self.start("--slots", 64)
        question, options = "Tell me everything.", {"temperature": 2, "max_tokens": 400}
        seed = next(s for s in range(100)
                    if self.chat(question, seed=s, **options).usage.completion_tokens == 400)
        self.open(server)
        self.page.click("summary")
        for name, value in (("temperature", 2), ("max-tokens", 400), ("seed", seed)):
            self.page.fill(f"#{name}", str(value))
        # Clicked by the page itself as soon as there is something to stop: this model is quick.
        self.page.evaluate("""new MutationObserver(() => {
            if (document.querySelector('.assistant')?.textContent)
              document.getElementById('stop').click();
        }).observe(document.getElementById('chat'), {childList: true, subtree: true})""")
        done = threading.Event()

        def keep_busy():
            client = server.client()
            while not done.is_set():
                self.complete(client=client, n=15, temperature=2, max_tokens=480)

        others = [threading.Thread(target=keep_busy) for _ in range(4)]
        for thread in others:
            thread.start()
        self.assertTrue(eventually(lambda: server.metric("qnpu_slots_used") > 30))
        try:
            for _ in range(10):  # an answer may come whole, in one piece
                self.page.click("#clear")
                self.ask(question)
                self.wait_for_answer()
                if self.page.inner_text("#status") == "stopped":
                    break
            self.assertEqual(self.page.inner_text("#status"), "stopped")
        finally:
            done.set()
            for thread in others:
                thread.join()
        text = self.page.inner_text(".assistant")
        self.assertTrue(eventually(server.is_idle, 3))
        whole = self.chat(question, seed=seed, **options).choices[0].message.content
        self.assertLess(len(text), len(whole.strip()))
        self.assertEqual(self.page.inner_text(".assistant"), text)
        self.assertEqual(self.troubles, [])

    def test_a_key(self):
        server = self.start(QNPU_API_KEY="sesame")
        self.open(server)
        self.page.get_by_text("API key: send it").wait_for()
        self.page.click("summary")
        self.page.fill("#key", "sesame")
        self.page.press("#key", "Tab")
        self.page.get_by_role("heading", name="tiny").wait_for()

    def test_light_and_dark(self):
        colors = {}
        for scheme in ("light", "dark"):
            page = self.open(color_scheme=scheme)
            colors[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            self.assertEqual(self.troubles, [])
        self.assertNotEqual(colors["light"], colors["dark"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
