"""Makes the tiny models of testdata/models and the golden logits that the tests compare with.

Needs scripts/requirements-goldens.txt (torch, transformers). Run from the repository root:

    python scripts/make_goldens.py tiny [NAME...]                testdata/models/tiny-*: these, or all
    python scripts/make_goldens.py smollm2 models/smollm2-135m   testdata/goldens/smollm2-135m.*

Each tiny model has two layers of random weights, with the traits that make real models hard: norm
weights away from one, a few outlier channels. The weights come from numpy's generator and a fixed
seed; the logits are those of transformers in fp32 on the weights as stored.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel

ROOT = Path(__file__).resolve().parents[1]
MERGES = ["Ġ t", "h e", "i n", "Ġt he", "e r", "o n", "Ġ a", "in g"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
TOKENIZER_SIZE = 256 + len(MERGES) + len(SPECIALS)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
POSITIONS = 96  # of the tiny models' goldens

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": TOKENIZER_SIZE,
    "bos_token_id": 256 + len(MERGES),
    "eos_token_id": 256 + len(MERGES) + 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Tiny:
    """One tiny model: which class, what differs from SIZES, how it is stored."""

    config: type
    changes: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float16
    old_config_form: bool = False  # rope_theta and rope_scaling instead of rope_parameters
    max_shard_size: str = "1GB"
    adds_bos: bool = False


TINY = {
    "tiny-llama": Tiny(
        transformers.LlamaConfig,
        {"tie_word_embeddings": True, "hidden_size": 64, "rope_parameters": LLAMA3_ROPE},
    ),
    "tiny-llama-untied": Tiny(
        transformers.LlamaConfig,
        {"tie_word_embeddings": False, "head_dim": 16},
        dtype=torch.bfloat16,
        old_config_form=True,
        max_shard_size="60KB",
        adds_bos=True,
    ),
    "tiny-mistral": Tiny(
        transformers.MistralConfig,
        {
            "tie_word_embeddings": False,
            "hidden_size": 64,
            "intermediate_size": 160,
            "sliding_window": None,
        },
    ),
    "tiny-qwen2": Tiny(
        transformers.Qwen2Config,
        {"tie_word_embeddings": True, "hidden_size": 64, "vocab_size": 288},
        dtype=torch.bfloat16,
    ),
    "tiny-qwen3": Tiny(
        transformers.Qwen3Config,
        {"tie_word_embeddings": True, "head_dim": 16},
        dtype=torch.float32,
    ),
}


def random_values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Logits get a standard deviation of 2 to 3; a few channels stand out by a factor of 4."""
    values = rng.normal(size=shape)
    if name.endswith("norm.weight"):
        values = rng.uniform(0.5, 1.5, size=shape)
        if name != "model.norm.weight":
            values[rng.choice(shape[0], 2, replace=False)] *= 4.0
    elif name.endswith(".bias"):
        values *= 0.5
    elif "embed_tokens" in name or "lm_head" in name:
        values *= 0.2
        if "embed_tokens" in name:
            values[:, rng.choice(shape[1], 2, replace=False)] *= 4.0
    else:
        values *= shape[1] ** -0.5
    if name.endswith(("down_proj.weight", "o_proj.weight")):
        values[rng.choice(shape[0], 2, replace=False)] *= 4.0
    return values


def make_model(tiny: Tiny, rng: np.random.Generator) -> torch.nn.Module:
    config = tiny.config(**(SIZES | tiny.changes))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = random_values(name, tuple(parameter.shape), rng)
            parameter.copy_(torch.from_numpy(values))
    return model.to(tiny.dtype).eval()


def byte_tokenizer(adds_bos: bool) -> dict[str, Any]:
    """Byte-level BPE: the id of a byte is its value, then merges, then special tokens."""
    names = byte_names()
    vocab = {names[byte]: byte for byte in range(256)}
    for merge in MERGES:
        vocab[merge.replace(" ", "")] = len(vocab)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": len(vocab) + i, "content": text, **flags, "special": True}
        for i, text in enumerate(SPECIALS)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    level["use_regex"] = True
    bos = {"SpecialToken": {"id": SPECIALS[0], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    post_processor = {
        "type": "TemplateProcessing",
        "single": [bos, text],
        "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            SPECIALS[0]: {"id": SPECIALS[0], "ids": [len(vocab)], "tokens": [SPECIALS[0]]}
        },
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": MERGES,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": post_processor if adds_bos else None,
        "decoder": level,
        "model": model,
    }


def byte_names() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    printable = [chr(b) for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = iter(range(256, 512))
    names = [chr(b) if chr(b) in printable else chr(next(others)) for b in range(256)]
    assert sorted(names) == sorted(ByteLevel.alphabet())
    return names


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, adds_bos: bool) -> None:
    write_json(folder / "tokenizer.json", byte_tokenizer(adds_bos), indent=None)
    config = {
        "add_bos_token": adds_bos,
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[3],
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", config)


def to_old_form(config_file: Path) -> None:
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.40.0"
    write_json(config_file, dict(sorted(config.items())))


def load(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    ).eval()


@torch.no_grad()
def logits_of(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """[T, V] in fp32 of tokens [T]."""
    return model(tokens.long()[None]).logits[0].float()


def make_tiny(name: str, tiny: Tiny) -> None:
    folder = ROOT / "testdata" / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(sum(name.encode()))
    model = make_model(tiny, rng)
    model.save_pretrained(folder, max_shard_size=tiny.max_shard_size)
    if tiny.old_config_form:
        to_old_form(folder / "config.json")
    write_tokenizer(folder, tiny.adds_bos)
    vocab_size = model.config.vocab_size
    tokens = torch.from_numpy(rng.integers(0, vocab_size, POSITIONS).astype(np.int32))
    logits = logits_of(load(folder, torch.float32), tokens)
    save_file({"tokens": tokens, "logits": logits}, folder / "golden.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: logits' deviation {logits.std():.2f}, {size} bytes")


def perplexity(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Each token but the first is predicted from those before it."""
    return torch.nn.functional.cross_entropy(logits[:-1], tokens[1:].long()).exp()


def make_smollm2(model_folder: Path, length: int = 512, columns: int = 96) -> None:
    goldens = ROOT / "testdata" / "goldens"
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    ids = tokenizer((goldens / "prose.txt").read_text(encoding="utf-8")).input_ids
    assert len(ids) >= length, f"prose.txt has {len(ids)} tokens only"
    tokens = torch.tensor(ids[:length], dtype=torch.int32)
    logits = logits_of(load(model_folder, torch.float32), tokens)
    # Position t keeps the logits of the ids t, t + 512, t + 1024, ...
    logit_ids = torch.arange(length)[:, None] + length * torch.arange(columns)[None]
    logit_ids %= logits.shape[1]
    bf16 = logits_of(load(model_folder, torch.bfloat16), tokens)
    golden = {
        "tokens": tokens,
        "logit_ids": logit_ids.int(),
        "logits": logits.gather(1, logit_ids),
        "perplexity_fp32": perplexity(logits, tokens),
        "perplexity_bf16": perplexity(bf16, tokens),
    }
    save_file(golden, goldens / "smollm2-135m.safetensors")
    print({name: value.item() for name, value in golden.items() if value.dim() == 0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    tiny_models = commands.add_parser("tiny", help="the tiny models and their logits")
    tiny_models.add_argument("names", nargs="*", choices=[*TINY, []], metavar="NAME")
    smollm2 = commands.add_parser("smollm2", help="logits of SmolLM2-135M")
    smollm2.add_argument("folder", type=Path, help="what scripts/fetch-model wrote")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "smollm2":
        make_smollm2(args.folder)
    else:
        for name in args.names or TINY:
            make_tiny(name, TINY[name])


if __name__ == "__main__":
    main()
