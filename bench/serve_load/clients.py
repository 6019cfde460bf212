"""Clients that ask without a pause."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time

import openai

from .server import Server


@dataclasses.dataclass
class Load:
    text: str
    clients: int
    warm_up: float
    seconds: float
    characters: int
    tokens: int


@dataclasses.dataclass
class Request:
    client: int
    sent: float  # seconds since the beginning
    first: float = 0.0  # when the first piece of the answer came
    done: float = 0.0
    tokens: int = 0
    error: str = ""


def prompt(load: Load, draw: random.Random, longest: bool) -> str:
    length = load.characters if longest else draw.randint(20, load.characters)
    begin = draw.randrange(max(1, len(load.text) - length))
    return load.text[begin:begin + length]


async def ask(client: openai.AsyncOpenAI, model: str, load: Load, request: Request, text: str,
              clock: float) -> None:
    try:
        stream = await client.completions.create(
            model=model, prompt=text, max_tokens=load.tokens, stream=True, temperature=1,
            stream_options={"include_usage": True})
        async for chunk in stream:
            request.first = request.first or time.monotonic() - clock
            if chunk.usage:
                request.tokens = chunk.usage.completion_tokens
    except openai.OpenAIError as error:
        request.error = f"{type(error).__name__}: {error}"
    request.done = time.monotonic() - clock


async def run_client(number: int, load: Load, server: Server, requests: list[Request],
                     clock: float) -> None:
    draw = random.Random(number)
    client = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    while time.monotonic() - clock < load.warm_up + load.seconds:
        request = Request(number, time.monotonic() - clock)
        # The longest first: a slot's memory is touched as far as its longest sequence goes.
        text = prompt(load, draw, longest=request.sent < load.warm_up)
        await ask(client, server.model, load, request, text, clock)
        requests.append(request)
    await client.close()


async def watch_memory(load: Load, server: Server, memory: list[float], clock: float) -> None:
    """After the warm-up, then every tenth of the time."""
    for i in range(11):
        at = load.warm_up + i * load.seconds / 10
        await asyncio.sleep(max(0.0, clock + at - time.monotonic()))
        memory.append(server.memory())


async def run_clients(load: Load, server: Server, memory: list[float]) -> list[Request]:
    requests: list[Request] = []
    clock = time.monotonic()
    await asyncio.gather(watch_memory(load, server, memory, clock),
                         *(run_client(i, load, server, requests, clock)
                           for i in range(load.clients)))
    return requests
