"""GGUF tokenizer metadata to `tokenizer.json` and `tokenizer_config.json`."""

from __future__ import annotations

from typing import Any

from .source import ConvertError, Source

# Token types in `tokenizer.ggml.token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = _LETTERS % r"\p{N}"
LLAMA3_PATTERN = _LETTERS % r"\p{N}{1,3}"


def byte_level(**changes: bool) -> dict[str, Any]:
    values = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True} | changes
    return {"type": "ByteLevel", **values}


def split_then_bytes(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    bytes_only = byte_level(trim_offsets=False, use_regex=False)
    return {"type": "Sequence", "pretokenizers": [split, bytes_only]}


def pre_tokenizer(source: Source) -> dict[str, Any]:
    kind = source.get("tokenizer.ggml.pre", "default")
    digits = {"type": "Digits", "individual_digits": True}
    kinds = {
        "gpt-2": byte_level(),
        "smollm": {"type": "Sequence", "pretokenizers": [digits, byte_level()]},
        "qwen2": split_then_bytes(QWEN2_PATTERN),
        "llama-bpe": split_then_bytes(LLAMA3_PATTERN),
    }
    if kind not in kinds:
        known = ", ".join(kinds)
        raise ConvertError(
            f"{source.path}: pre-tokenizer {kind} is not supported (supported: {known})"
        )
    return kinds[kind]


def token_types(source: Source) -> list[int]:
    tokens = source.require("tokenizer.ggml.tokens")
    return source.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))


def real_tokens(source: Source) -> dict[str, int]:
    """Text -> id, without the fillers that only round the vocabulary up."""
    tokens = source.require("tokenizer.ggml.tokens")
    types = token_types(source)
    if len(types) != len(tokens):
        raise ConvertError(f"{source.path}: {len(tokens)} tokens but {len(types)} token types")
    return {
        text: i
        for i, (text, kind) in enumerate(zip(tokens, types))
        if not (kind == UNUSED and text.startswith("[PAD"))
    }


def added_tokens(source: Source, kinds: tuple[int, ...]) -> list[dict[str, Any]]:
    types = token_types(source)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": text, **flags, "special": types[i] != USER_DEFINED}
        for text, i in real_tokens(source).items()
        if types[i] in kinds
    ]


def byte_level_bpe(source: Source) -> dict[str, Any]:
    kind = source.get("tokenizer.ggml.pre", "default")
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": kind == "llama-bpe",
        "vocab": real_tokens(source),
        "merges": source.require("tokenizer.ggml.merges"),
    }
    return {
        "added_tokens": added_tokens(source, (UNKNOWN, CONTROL, USER_DEFINED)),
        "normalizer": {"type": "NFC"} if kind == "qwen2" else None,
        "pre_tokenizer": pre_tokenizer(source),
        "decoder": byte_level(add_prefix_space=True),
        "model": model,
    }


def merges_of_scores(vocab: dict[str, int], scores: list[float], mergeable: set[str]) -> list[str]:
    """A scored vocabulary joins the two neighbours that form the best-scored piece; as a list of
    merges: every split of every piece into two pieces, best score first."""
    merges: list[tuple[float, int, int, int, int, str]] = []
    for piece in mergeable:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                order = (-scores[vocab[piece]], -len(left), -len(right), vocab[left], vocab[right])
                merges.append((*order, f"{left} {right}"))
    return [merge[-1] for merge in sorted(merges)]


def byte_fallback_bpe(source: Source) -> dict[str, Any]:
    """Llama 2 family: SentencePiece BPE with bytes for what the vocabulary lacks."""
    vocab = real_tokens(source)
    types = token_types(source)
    mergeable = {text for text, i in vocab.items() if types[i] == NORMAL}
    unknown = next((text for text, i in vocab.items() if types[i] == UNKNOWN), None)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    normalizers, decoders = [spaces], [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if source.get("tokenizer.ggml.add_space_prefix", True):
        normalizers.insert(0, {"type": "Prepend", "prepend": "▁"})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges_of_scores(vocab, source.require("tokenizer.ggml.scores"), mergeable),
    }
    return {
        "added_tokens": added_tokens(source, (UNKNOWN, CONTROL, USER_DEFINED)),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def token_text(source: Source, name: str) -> str | None:
    index = source.get(f"tokenizer.ggml.{name}_token_id")
    return None if index is None else source.require("tokenizer.ggml.tokens")[index]


def adds_bos(source: Source) -> bool:
    usual = source.require("tokenizer.ggml.model") == "llama" or (
        source.get("tokenizer.ggml.pre") == "llama-bpe"
    )
    return bool(source.get("tokenizer.ggml.add_bos_token", usual))


def post_processor(source: Source) -> dict[str, Any] | None:
    """Puts the first and last token around a text, where the model wants them."""
    added = {
        "bos": adds_bos(source),
        "eos": bool(source.get("tokenizer.ggml.add_eos_token", False)),
    }
    texts = {name: token_text(source, name) for name, wanted in added.items() if wanted}
    if not texts:
        return None
    if missing := [name for name, text in texts.items() if text is None]:
        raise ConvertError(f"{source.path}: tokenizer.ggml.{missing[0]}_token_id is missing")

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        special = {n: {"SpecialToken": {"id": t, "type_id": type_id}} for n, t in texts.items()}
        middle = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [part for part in (special.get("bos"), middle, special.get("eos")) if part]

    special_tokens = {
        text: {"id": text, "ids": [source.get(f"tokenizer.ggml.{name}_token_id")], "tokens": [text]}
        for name, text in texts.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": special_tokens,
    }


def make_tokenizer(source: Source) -> dict[str, Any]:
    kinds = {"gpt2": byte_level_bpe, "llama": byte_fallback_bpe}
    kind = source.require("tokenizer.ggml.model")
    if kind not in kinds:
        raise ConvertError(
            f"{source.path}: tokenizer model {kind} is not supported"
            f" (supported: {', '.join(kinds)})"
        )
    parts = kinds[kind](source)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": parts["added_tokens"],
        "normalizer": parts["normalizer"],
        "pre_tokenizer": parts["pre_tokenizer"],
        "post_processor": post_processor(source),
        "decoder": parts["decoder"],
        "model": parts["model"],
    }


def make_tokenizer_config(source: Source) -> dict[str, Any]:
    config: dict[str, Any] = {
        "add_bos_token": adds_bos(source),
        "add_eos_token": bool(source.get("tokenizer.ggml.add_eos_token", False)),
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.arch_require("context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    names = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    for theirs, ours in names.items():
        if (text := token_text(source, theirs)) is not None:
            config[f"{ours}_token"] = text
    if (template := source.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    return config
