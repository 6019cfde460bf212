"""Integer language models, as `qnpu quantize` writes them: run them, and look into them.

    model = quantnpu.load("my-model")
    session = quantnpu.Session(model)
    result = session.generate(model.tokenizer.encode("The capital of France is"), max_tokens=16)
    print(model.tokenizer.decode(result.tokens))

docs/python.md has more.
"""

from quantnpu import recipes
from quantnpu._core import (
    Batch,
    Error,
    Generated,
    Model,
    Session,
    Site,
    SiteStatistics,
    TextStream,
    TokenIterator,
    Tokenizer,
    load,
    plan,
    statistics,
    trace,
)
from quantnpu._core import version as __version__

__all__ = [
    "Batch",
    "Error",
    "Generated",
    "Model",
    "Session",
    "Site",
    "SiteStatistics",
    "TextStream",
    "TokenIterator",
    "Tokenizer",
    "__version__",
    "load",
    "plan",
    "recipes",
    "statistics",
    "trace",
]
