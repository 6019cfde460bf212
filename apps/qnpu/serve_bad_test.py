"""What `qnpu serve` makes of bad clients.

    serve_bad_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import contextlib
import json
import random
import socket
import time

from program_testing import main
from serve_testing import RawCase, eventually


class Bad(RawCase):
    """Whatever comes over the wire, the server answers with the right status or hangs up, and then
    still says what it said before."""

    ARGUMENTS = ("--max-body", 0.1)

    def setUp(self):
        self.right = self.complete().choices[0].text

    def tearDown(self):
        self.assertIsNone(self.server.process.poll())
        self.assertTrue(eventually(self.server.is_idle))
        self.assertEqual(self.complete().choices[0].text, self.right)

    def test_bodies(self):
        good = json.dumps(self.GOOD).encode()
        self.assertEqual(self.post(good)[0], 200)
        deep = b'{"prompt": ' + b"[" * 40000 + b"]" * 40000 + b"}"
        wide = b'{"prompt": [' + b"{}," * 30000 + b"{}]}"
        for body in (b"", b"x", b"[]", b"null", b"{", good[:-1], good + b"x", b"\xff" + good, b"\0",
                     b'{"prompt": "\xff\xfe"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": NaN}',
                     b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "top_p": Infinity}',
                     b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "\\ud800"}',
                     b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", deep, wide,
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
        within = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for line in (f"Content-Length: {len(within)}", "Transfer-Encoding: chunked"):
            head = f"GET /health HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode()
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
                (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
                (b"GET / HTTP/1.1\r\nA: b\r\nX: " + b"a" * 60000 + b"\r\nY: z\r\n\r\n", 431),
                (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, 431),
                (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n", 431),
                (b"GET /" + b"a" * 100000, 414, None), (b"a" * 200000, 414, None),
                (b"GET /metrics HTTP/1.1\r\nRange: bytes=z\r\n\r\n", 416)):
            self.assert_refused(self.send(head), *statuses)

    def test_the_longest_header(self):
        for size, status in ((8192, 200), (8193, 431)):
            for before in (b"", b"A: b\r\n" * 100):
                line = b"X: " + b"a" * (size - 5) + b"\r\n"
                head = b"GET /health HTTP/1.1\r\n" + before + line + b"\r\n"
                self.assertEqual(self.send(head)[0], status, size)

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


if __name__ == "__main__":
    main()
