"""Where `qnpu serve` listens, and the names by which it may be asked.

    serve_hosts_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import json
import socket
import unittest

from program_testing import main
from serve_testing import PROMPT, RawCase


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class Hosts(RawCase):
    def ask(self, host, server=None, path="/health"):
        """(status, body) of a request that names this host."""
        line = "" if host is None else f"Host: {host}\r\n"
        head = f"GET {path} HTTP/1.1\r\n{line}Connection: close\r\n\r\n"
        return self.send(head.encode(), server=server)

    def assert_allowed(self, *hosts, server=None):
        for host in hosts:
            self.assertEqual(self.ask(host, server), (200, {"status": "ok"}), host)

    def assert_not_allowed(self, *hosts, server=None):
        for host in hosts:
            answer = self.ask(host, server)
            self.assertEqual(answer[0], 403, host)
            self.assert_refused(answer, 403)
            self.assertEqual(answer[1]["error"]["code"], "host_not_allowed")

    def test_loopback(self):
        self.assert_allowed("localhost", "LocalHost:80", "127.0.0.1", f"127.0.0.1:{self.server.port}",
                            "[::1]", "[::1]:8080", "", None)
        self.assert_not_allowed("evil.example", f"evil.example:{self.server.port}", ":8080", "::1",
                                "localhost.evil.example", "127.0.0.2", "127.0.0.1.evil.example",
                                "localhost@evil.example", "tiny")

    def test_every_path_is_guarded(self):
        """Before anything of a request is read but its head."""
        for path in ("/", "/chat.js", "/metrics", "/v1/models", "/nowhere"):
            self.assert_refused(self.ask("evil.example", path=path), 403)
        body = json.dumps({"prompt": PROMPT}).encode()
        head = (b"POST /v1/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json"
                b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        before = self.server.metric("qnpu_generated_tokens_total")
        self.assert_refused(self.send(head + body), 403)
        self.assertEqual(self.server.metric("qnpu_generated_tokens_total"), before)

    def test_two_hosts(self):
        for pair in (("localhost", "evil.example"), ("evil.example", "localhost")):
            lines = "".join(f"Host: {host}\r\n" for host in pair)
            self.assert_refused(self.send(f"GET / HTTP/1.1\r\n{lines}\r\n".encode()), 400)

    def test_more_names(self):
        server = self.start("--allow-host", "models.lan", "--allow-host", "other.lan")
        self.assert_allowed("models.lan", "MODELS.lan:443", "other.lan", "localhost", server=server)
        self.assert_not_allowed("third.lan", server=server)

    def test_another_loopback_address(self):
        server = self.start("--host", "127.0.0.2")
        self.assertTrue(server.url.startswith("http://127.0.0.2:"))
        self.assert_allowed("127.0.0.2", "localhost", server=server)
        self.assert_not_allowed("127.0.0.3", "evil.example", server=server)

    def test_any_address(self):
        server = self.start("--host", "0.0.0.0")
        self.assert_allowed("models.lan", "10.1.2.3:8080", server=server)
        server = self.start("--host", "0.0.0.0", "--allow-host", "models.lan")
        self.assert_allowed("models.lan", "localhost", server=server)
        self.assert_not_allowed("evil.example", server=server)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_ipv6(self):
        server = self.start("--host", "::1")
        self.assertRegex(server.url, r"^http://\[::1\]:\d+$")
        self.assertEqual(self.complete(client=server.client()).choices, self.complete().choices)
        self.assertEqual(json.loads(server.get("/health")), {"status": "ok"})
        self.assert_allowed("[::1]", "localhost:1", server=server)
        self.assert_not_allowed("evil.example", "::1", server=server)


if __name__ == "__main__":
    main()
