"""A `qnpu serve` of our own."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any


class Failed(Exception):
    """What cannot be measured, as one sentence."""


class Server:
    def __init__(self, program: Path, artifact: Path, options: list[Any]) -> None:
        command = [program, "serve", artifact, "--port", 0, *options]
        self.process = subprocess.Popen([str(x) for x in command], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        match = re.search(r"qnpu: (.*) at (http://\S+:\d+)", line)
        if match is None:
            raise Failed(f"the server did not start: {line.strip()}")
        self.model, self.url = match[1], match[2]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        if (code := self.process.wait(timeout=60)) and kind is None:
            raise Failed(f"the server ended with exit code {code}")

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        if match is None:
            raise Failed("the server has died")
        return int(match[1]) * 1024 / 1e6

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.url + "/metrics") as response:
            lines = response.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}
