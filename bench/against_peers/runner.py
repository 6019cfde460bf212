"""What the peers' programs have in common: the command line, the walk over lengths, the result in
the form of `qnpu bench --json`."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple, Protocol

VOCABULARY = 49152  # tokens below this are known to every model here


class Figures(NamedTuple):
    prefill: float  # seconds
    decode: float


class Peer(Protocol):
    load_seconds: float

    def seconds(self, length: int, steps: int) -> Figures:
        """Of a new prompt of `length` tokens, then of `steps` tokens more."""


def arguments(text: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("--prompts", type=lengths, default=[])
    parser.add_argument("--contexts", type=lengths, default=[])
    parser.add_argument("--decode", type=int, default=32, help="tokens to decode")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="weights as the file has them")
    return parser.parse_args()


def lengths(text: str) -> list[int]:
    return [int(x) for x in text.split(",")]


def random_tokens(count: int) -> list[int]:
    return [random.randrange(VOCABULARY) for _ in range(count)]


def measure(peer: Peer, args: argparse.Namespace) -> dict[str, Any]:
    """Each length once: a prompt that is also a context serves both."""
    peer.seconds(128, 1)  # first touch of the weights
    result: dict[str, Any] = {"load_seconds": peer.load_seconds, "prefill": [], "decode": []}
    for length in sorted({*args.prompts, *args.contexts}):
        figures = peer.seconds(length, args.decode if length in args.contexts else 1)
        if length in args.prompts:
            result["prefill"].append({"prompt": length,
                                      "tokens_per_second": length / figures.prefill})
        if length in args.contexts:
            result["decode"].append({"context": length,
                                     "tokens_per_second": args.decode / figures.decode})
    return result
