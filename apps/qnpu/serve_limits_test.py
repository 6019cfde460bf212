"""Where `qnpu serve` sets limits, and how it ends.

    serve_limits_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import contextlib
import json
import pathlib
import shutil
import signal
import socket
import time
import urllib.error

import openai

from program_testing import main, run
from serve_testing import PROMPT, Case, eventually


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
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
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


if __name__ == "__main__":
    main()
