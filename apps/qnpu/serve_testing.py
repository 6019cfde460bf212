"""A `qnpu serve` on a tiny model, for its tests, and what they ask of it by the openai package."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

import openai

from program_testing import MODEL, PROGRAM, FolderCase, quantize, run

PROMPT = "In the morning the river runs through the"
CONTEXT = 512


class Server:
    """A running `qnpu serve`, on a port of its own choice."""

    def __init__(self, artifact, *arguments, **environment):
        command = [PROGRAM, "serve", artifact, "--port", 0, "--name", "tiny", "--threads", 1]
        self.process = subprocess.Popen(
            [str(x) for x in (*command, *arguments)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment})
        line = self.process.stderr.readline()
        match = re.search(r" at (http://(\S+):(\d+)) ", line)
        if match is None:
            raise AssertionError(line + self.process.stderr.read())
        self.url, self.host, self.port = match[1], match[2].strip("[]"), int(match[3])

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


class Case(FolderCase):
    ARGUMENTS = ()
    MODEL = MODEL

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.artifact = cls.folder / "artifact"
        result = quantize(cls.artifact, model=cls.MODEL)
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


class RawCase(Case):
    """Requests as bytes, good and bad ones."""

    GOOD = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}

    def connect(self, server=None, timeout=20):
        server = server or self.server
        return socket.create_connection((server.host, server.port), timeout=timeout)

    def send(self, data, *more, server=None, timeout=20):
        """(status, JSON) of the answer; (None, None) if there was none."""
        with self.connect(server, timeout) as s:
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
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json",
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
