"""Writes a model folder all at once: it is complete and checked, or it is not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .config import make_config, make_generation_config
from .source import ConvertError, Source
from .tensors import write_tensors
from .tokenizer import make_tokenizer, make_tokenizer_config

RECORD = "fetched.json"  # what a folder was made from, and the SHA-256 of each file in it
VERSION = 1  # of this conversion; a higher one converts again


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def is_made_from(folder: Path, source_sha256: str) -> bool:
    """Whether the folder was made from this very file, by this version, and is undamaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if (record["version"], record["source_sha256"]) != (VERSION, source_sha256):
            return False
        return all(sha256(folder / name) == digest for name, digest in record["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder / RECORD).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConvertError(f"{folder}: exists and was not made by fetch-model; name another folder")


def write_files(source: Source, folder: Path) -> None:
    config = make_config(source)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", make_generation_config(source))
    write_json(folder / "tokenizer.json", make_tokenizer(source), indent=None)
    write_json(folder / "tokenizer_config.json", make_tokenizer_config(source))
    write_tensors(source, config, folder / "model.safetensors")


def check_digests(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    for name, digest in expected.items():
        if digests[name] != digest:
            raise ConvertError(
                f"{name}: SHA-256 is {digests[name]}, expected {digest}; nothing was written"
            )
    return digests


def replace(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`; what was there goes away last."""
    if not folder.exists():
        new.rename(folder)
        return
    old = new.with_name(new.name + ".old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def convert(gguf_file: Path, folder: Path, source_sha256: str, expected: dict[str, str]) -> None:
    """Writes the Hugging Face folder of a GGUF file. `expected`: SHA-256 of files to be written."""
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        os.chmod(temporary, 0o755)
        write_files(Source(gguf_file), temporary)
        digests = check_digests(temporary, expected)
        record = {"version": VERSION, "source_sha256": source_sha256, "files": digests}
        write_json(temporary / RECORD, record)
        replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
