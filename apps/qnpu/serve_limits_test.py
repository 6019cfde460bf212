"""Where `qnpu serve` sets limits, and how it ends.

    serve_limits_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import time
import urllib.error

import openai

from program_testing import main, run
from serve_testing import PROMPT, Case, RawCase, eventually


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
        first = next(stream)
        with self.assertRaises(openai.RateLimitError) as caught:
            self.complete([PROMPT] * 15, n=16)
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.assertEqual(self.server.metric('qnpu_rejected_total{reason="queue full"}'), 1)
        ends = sum(c.finish_reason is not None for x in [first, *stream] for c in x.choices)
        self.assertEqual(ends, 256)

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

    def test_stopping(self):
        wanted = [c.text for c in self.complete(seed=3, **self.LONG).choices]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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

    def test_a_second_signal_does_not_wait(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            server = self.start("--drain", 60, "--slots", 1)
            stream = self.complete(client=server.client(), stream=True, **self.LONG)
            next(stream)
            server.process.send_signal(number)
            self.assertTrue(eventually(lambda: not self.accepts(server)))
            server.process.send_signal(number)
            self.assertEqual(server.process.wait(timeout=30), -number)  # 128 + it to a shell
            stream.close()

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
                (("--port", 0, "--allow-host", "http://models.lan"), ("http://models.lan", "name")),
                (("--slots", 0), ("0 slots",)), (("--context", 100000), ("100000",))):
            result = run("serve", self.artifact, *arguments)
            self.assertEqual(result.returncode, 1)
            for word in ("qnpu: error: ", *words):
                self.assertIn(str(word), result.stderr)

    def test_a_folder_that_is_no_artifact(self):
        result = run("serve", self.folder)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{self.folder} holds no graph.json", result.stderr)

    def test_a_model_without_a_template(self):
        artifact = pathlib.Path(shutil.copytree(self.artifact, self.folder / "no-template"))
        config = json.loads((artifact / "tokenizer_config.json").read_text())
        del config["chat_template"]
        (artifact / "tokenizer_config.json").write_text(json.dumps(config))
        server = self.start(artifact=artifact)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(client=server.client())
        self.assertIn("no chat template", str(caught.exception))


class Connections(RawCase):
    """Clients that open connections and say nothing, or not all that they have to say."""

    MOST = 8
    ARGUMENTS = ("--connections", MOST, "--slots", 4)

    def open(self, stack, count, said=b""):
        sockets = [stack.enter_context(self.connect()) for _ in range(count)]
        for s in sockets:
            s.sendall(said)
        return sockets

    def ask(self, sockets):
        for s in sockets:
            s.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                part = s.recv(1000)
                self.assertTrue(part, "it was closed")
                answer += part
            self.assertIn(b" 200 ", answer)

    def threads(self):
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(r"Threads:\s+(\d+)", status)[1])

    def rejected(self):
        return [x for x in self.server.get("/metrics").splitlines() if 'reason="connections"' in x]

    def turned_away(self):
        start = time.monotonic()
        answer = self.post(self.GOOD)
        self.assertLess(time.monotonic() - start, 2)
        return answer[0] == 503

    def test_who_says_nothing_is_in_nobodys_way(self):
        right = self.complete().choices[0].text
        before, rejected = self.threads(), self.rejected()
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                self.open(stack, 50)
                start = time.monotonic()
                with self.server.client() as client:
                    self.assertEqual(self.complete(client=client).choices[0].text, right)
                self.assertLess(time.monotonic() - start, 2)
            self.assertLessEqual(self.threads(), before)
            self.assertTrue(eventually(
                lambda: self.server.metric("qnpu_connections") <= self.MOST))
        self.assertEqual(self.rejected(), rejected)

    def test_who_is_being_answered_stays(self):
        wished = {"n": 4, "max_tokens": 480, "temperature": 2, "seed": 1}
        wanted = [c.text for c in self.complete(**wished).choices]
        texts = ["" for _ in wanted]
        with contextlib.ExitStack() as stack:
            for number, chunk in enumerate(self.complete(stream=True, **wished)):
                texts[chunk.choices[0].index] += chunk.choices[0].text
                if number % 20 == 0:
                    self.open(stack, 3)
        self.assertEqual(texts, wanted)

    def test_who_waited_for_longest_leaves(self):
        with contextlib.ExitStack() as stack:
            early, late = (self.open(stack, self.MOST // 2) for _ in range(2))
            for group in (early, late, early):  # those wait again later than the others
                time.sleep(0.1)
                self.ask(group)
            time.sleep(0.1)
            self.open(stack, self.MOST // 2)
            for s in late:
                self.assertEqual(s.recv(1000), b"")
            self.ask(early)

    def test_more_than_can_be_served(self):
        with contextlib.ExitStack() as stack:
            self.open(stack, self.MOST, b"GET /health HTTP/1.1\r\n")  # their heads do not end
            self.assertTrue(eventually(self.turned_away))
            others = self.open(stack, 100)  # are told too, and keep nobody from being told
            answer = self.post(self.GOOD)
            self.assert_refused(answer, 503)
            self.assertIn("too many connections", answer[1]["error"]["message"])
            with self.assertRaises(openai.InternalServerError) as caught:
                self.complete(client=self.server.client())
            self.assertEqual(caught.exception.status_code, 503)
            self.assertEqual(caught.exception.response.headers["retry-after"], "1")
            for s in others:
                self.assertIn(b" 503 ", s.recv(1000))
        self.assertTrue(eventually(lambda: self.post(self.GOOD)[0] == 200))
        self.assertGreater(self.server.metric('qnpu_rejected_total{reason="connections"}'), 100)
        self.assertTrue(eventually(lambda: self.open_sockets() <= 3))

    def open_sockets(self):
        folder = pathlib.Path(f"/proc/{self.server.process.pid}/fd")
        links = []
        for link in folder.iterdir():
            with contextlib.suppress(OSError):
                links.append(os.readlink(link))
        return sum(x.startswith("socket:") for x in links)


if __name__ == "__main__":
    main()
