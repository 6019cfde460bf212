#!/usr/bin/env python3
"""Makes testdata/tokenizers: small tokenizers with the pipelines of the families that we read, a
nasty text, and the ids that the `tokenizers` library gives. The C++ tests compare with these.

usage: make_tokenizer_goldens.py [--smollm2 FOLDER]
  --smollm2 FOLDER  also write counts and hashes of the ids that the real SmolLM2 tokenizer.json of
                    FOLDER gives (testdata/tokenizers/smollm2_real.json)

Needs: scripts/requirements-goldens.txt. Everything is generated from the text in this file.
"""

import argparse
import copy
import json
import pathlib
import random

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent / "testdata" / "tokenizers"
MIXED_BYTES = 200_000

# --- Texts ----------------------------------------------------------------------------------------

SENTENCES = """
The scale of every activation is fixed before the compiler sees the graph, and nothing moves.
A table of sites names each place where a number is quantized; the runtime reads that table alone.
When rounding is undefined, two machines give two answers; when it is law, they give one.
We measured the perplexity of the model at 2048 tokens: 17.3 in float, 18.1 with 8-bit activations.
Don't guess what the user's file holds; they've a right to a clear error, and we're here.
Der Speicher wird beim Laden geplant, und während der Ausführung wird nichts mehr angelegt.
La précision dépend de l'échelle choisie ; la médiane n'est pas la moyenne, même à l'été.
El año pasado, la compilación tardó más de tres horas en un teléfono pequeño.
Матрица весов хранится целыми числами, по четыре бита на каждое значение.
Η κλίμακα κάθε καναλιού επιλέγεται μία φορά και μένει σταθερή.
量子化された重みは四ビットの整数で、行ごとに一つの尺度を持つ。
每个通道有一个比例，激活值在编译之前就已经固定。
양자화된 모델은 전화기에서 빠르게 실행됩니다. 결과는 항상 같습니다.
مقياس كل قناة ثابت قبل الترجمة ولا يتغير بعد ذلك أبدا.
כל מספר בגרף הוא שלם, והתוצאה זהה בכל מכונה.
प्रत्येक चैनल का एक पैमाना होता है और वह स्थिर रहता है।
ขนาดของแต่ละช่องถูกกำหนดไว้ล่วงหน้า
for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }  // int32 by proof
def forward(self, x):\n    return self.down(self.act(self.gate(x)) * self.up(x))\n
#include <vector>\r\nstd::vector<int> ids = tokenizer.encode(text, true);\r\n
{"bitwidth": 16, "zero_point": 0, "axis": -1, "scale": [0.0078125, 1e-05]}
https://example.org/path?query=value&other=%20space#fragment
""".strip().replace("\\n", "\n").replace("\\r", "\r").split("\n")

EMOJI = "😀 👩\u200d🚀 🇩🇪 👍🏽 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e007f ☃ ✅ 🤖🤖"

SECTIONS = {
    "empty": "",
    "one": "a",
    "plain": "Hello world! This is a test of the tokenizer, with words and words.",
    "leading space": "  two spaces first, and last  ",
    "contractions": "I'll don't we've they're he'd I'm it's 's 'LL DON'T WE'VE 'ſ O'Neill 'tis ''s",
    "digits": "0 12 345 6789 3.14159 1,000,000 v2.0b1 ½ ² Ⅷ ٣٤٥ १२३ 𝟘𝟙 ⑤ 10³ 7th",
    "white space": "a  b   c\td\t\te\n\nf\n \n g\r\nh\r\n\r\ni\rj \n  k   \n",
    "unicode spaces": "a\u00a0b\u3000c\u2028d\u2029e\u2003 f\u180eg\u200bh\u0085i\u202f\u205fj"
    "\u1680k\ufeff",
    "long runs": "x" * 700 + " " * 900 + "\n" * 40 + "ab" * 300 + "=" * 80 + "é" * 200,
    "emoji": EMOJI,
    "cjk": "今日は、世界！ 你好，世界。 안녕하세요 세계 ㄱㄴ ｶﾀｶﾅ　全角ＡＢＣ１２３ 𠮷野家",
    "composed": "é ñ ü Å ệ 각 ﬁ ½ Ω K",
    "decomposed": "e\u0301 n\u0303 u\u0308 A\u030a e\u0323\u0302 e\u0302\u0323 \u1100\u1161\u11a8 "
    "\u212b \u2126 "
    "\u212a a\u0300\u0301\u0302 \u0301x q\u0307\u0323 \u0958 \u2adc",
    "right to left": "שלום עולם \u200fمرحبا بالعالم\u200e، ١٢٣ \u202bمختلط abc\u202c",
    "indic and thai": "नमस्ते दुनिया क्षत्रिय สวัสดีชาวโลก வணக்கம்",
    "controls": "a\u0001b\u0007c\u001bd\u007fe\u0080f\u009fg\u001ch\u001fi",
    "rare": "\ue000\uf8ff\ufffd\ufffe\uffff\U000f0000\U0010ffff\U0001d49c"
    "\U0001f9ff\u0378\u00ad\u2060",
    "code": "def f(x: int) -> str:\n\treturn f\"{x!r:>10}\" if x != 0 else 'none'  # 100%\n\n"
    '    if (a && b || !c) { p->q[i++] ^= 0xFF\'FFu; }\r\n\t\t<div class="x">&nbsp;</div>\n'
    "SELECT * FROM t WHERE a_b = 'c''d'; $HOME/.x/*.y ~/a-b_c.d @user #tag \\n \\\\",
    "special tokens": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
    "</think>\n\n"
    "<|endoftext|><|endoftext|> a<|endoftext|>b <s>x</s> <unk> <0x41>",
    "nearly special": "<|im_start| > <|im_start <|im_<|im_end|>| <<|endoftext|>> <|ENDOFTEXT|> <s",
    "llama 3 chat": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "visible spaces": "▁ ▁▁a b▁c ▁\n▁ Ġ Ċ Ġa ",
    "quantization": " quantization quantization  quantizations requantization",
    "added tokens": "a <mask> b  <mask>c <end>  d <end>\n\n<end>e lone alone lone-lone _lone "
    "lone1 lone. "
    "Åa A\u030aa \u212b <mask><end> <mask>  <mask> <<mask>> (lone)",
    "mixed": "Äpfel, 中文🙂text123 über-mäßig\u0301 Ça va? “quoted” — dash… ‘x’ "
    "№5 €10 ±2° x² ≤ ∞ ∑∫ ™®©",
}


def mixed_text(atoms):
    """The same generator as in io/tokenizer_golden_test.cc: a linear congruence picks atoms."""
    state, size, parts = 12345, 0, []
    while size < MIXED_BYTES:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        parts.append(atoms[(state >> 33) % len(atoms)])
        size += len(parts[-1].encode())
    return "".join(parts)


def make_atoms():
    rng = random.Random(7)
    atoms = [
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "    ",
        ".",
        ", ",
        "!",
        "'s",
        "<|im_end|>",
    ]
    for sentence in SENTENCES:
        atoms += [" " + word for word in sentence.split(" ") if word]
        atoms.append(sentence)
    blocks = [
        (0x21, 0x7E),
        (0xA1, 0x17F),
        (0x300, 0x36F),
        (0x391, 0x3C9),
        (0x410, 0x44F),
        (0x5D0, 0x5EA),
        (0x627, 0x64A),
        (0x904, 0x939),
        (0xE01, 0xE30),
        (0x1100, 0x1112),
        (0x1161, 0x1175),
        (0x11A8, 0x11C2),
        (0x2000, 0x206F),
        (0x2190, 0x21FF),
        (0x3041, 0x3096),
        (0x4E00, 0x4FFF),
        (0xAC00, 0xAD00),
        (0xFF01, 0xFF5E),
        (0x1F600, 0x1F64F),
        (0x1D400, 0x1D450),
    ]
    for first, last in blocks:
        atoms += [chr(rng.randint(first, last)) for _ in range(12)]
    return atoms


def training_text(atoms):
    """Sentences, their words at random, and single characters: enough to learn real merges from."""
    rng = random.Random(1)
    lines = SENTENCES * 3
    words = [word for sentence in SENTENCES for word in sentence.split(" ") if word]
    lines += [" ".join(rng.choice(words) for _ in range(12)) for _ in range(400)]
    lines += ["".join(rng.choice(atoms) for _ in range(30)) for _ in range(100)]
    return lines


# --- Families: the pipelines as their tokenizer.json files have them ------------------------------

BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
BYTE_LEVEL_DECODER = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
MARK = "\u2581"


def split(regex, behavior="Isolated"):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": False}


def added(id, content, special=True, **flags):
    token = {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }
    return token | flags


def template(token, id):
    piece = {"SpecialToken": {"id": token, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [piece, text],
        "pair": [piece, text, piece, other],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


def train(lines, normalizer, pre_tokenizer, size, **options):
    """Vocabulary and merges that BPE learns behind this normalizer and pre-tokenizer."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    shell = json.loads(tokenizer.to_str())
    shell["normalizer"], shell["pre_tokenizer"] = normalizer, pre_tokenizer
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(shell))
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def file(model, tokens, normalizer, pre_tokenizer, post_processor, decoder):
    base = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": base | model,
    }


def byte_level_model(lines, normalizer, pre_tokenizer, size, first_id=0):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab, merges = train(lines, normalizer, pre_tokenizer, size, initial_alphabet=alphabet)
    return {token: id + first_id for token, id in vocab.items()}, merges


def smollm2(lines):
    """Special tokens first, merges as strings, no normalizer, each digit alone."""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<jupyter_code>"]
    steps = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    }
    vocab, merges = byte_level_model(lines, None, steps, 1200, len(names))
    tokens = [added(i, name) for i, name in enumerate(names)]
    vocab |= {name: i for i, name in enumerate(names)}
    model = {"vocab": vocab, "merges": [" ".join(merge) for merge in merges]}
    return file(model, tokens, None, steps, None, BYTE_LEVEL_DECODER)


def qwen2(lines):
    """NFC, special tokens outside the vocabulary, some added tokens that are not special."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    level = BYTE_LEVEL | {"trim_offsets": False, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split(regex), level]}
    vocab, merges = byte_level_model(lines, {"type": "NFC"}, steps, 1200)
    tokens = [
        added(len(vocab) + i, name)
        for i, name in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    ]
    tokens += [
        added(len(vocab) + 3 + i, name, special=False)
        for i, name in enumerate(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    ]
    model = {
        "vocab": vocab,
        "merges": [" ".join(merge) for merge in merges],
        "ignore_merges": False,
    }
    return file(model, tokens, {"type": "NFC"}, steps, level, level)


def llama3(lines):
    """Runs of three digits, ignore_merges, BOS by a template; merges as lists."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    level = BYTE_LEVEL | {"use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split(regex), level]}
    vocab, merges = byte_level_model(lines, None, steps, 1200)
    for word in ["Ġquantization", "Ġrequantization"]:  # words that no merge can reach
        assert word not in vocab
        vocab[word] = len(vocab)
    names = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    tokens = [added(len(vocab) + i, name) for i, name in enumerate(names)]
    post = {"type": "Sequence", "processors": [BYTE_LEVEL, template(names[0], tokens[0]["id"])]}
    model = {"vocab": vocab, "merges": merges, "ignore_merges": True}
    return file(model, tokens, None, steps, post, BYTE_LEVEL_DECODER)


def byte_fallback_model(lines, size):
    """Learned on words that begin with the mark; <unk>, <s>, </s> and 256 bytes come first."""
    marks = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    vocab, merges = train(lines, None, marks, size, limit_alphabet=150)
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    names = first + sorted(vocab, key=vocab.get)
    return {
        "vocab": {name: i for i, name in enumerate(names)},
        "merges": merges,
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }


def byte_fallback_decoder():
    return {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }


def llama2(lines):
    model = byte_fallback_model(lines, 1000)
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": MARK},
            {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        ],
    }
    tokens = [added(i, name) for i, name in enumerate(["<unk>", "<s>", "</s>"])]
    return file(model, tokens, normalizer, None, template("<s>", 1), byte_fallback_decoder())


def mistral(lines):
    """The newer form of Llama 2's: a pre-tokenizer in place of the normalizer."""
    model = byte_fallback_model(lines, 700)
    marks = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}
    tokens = [added(i, name) for i, name in enumerate(["<unk>", "<s>", "</s>"])]
    return file(model, tokens, None, marks, template("<s>", 1), byte_fallback_decoder())


def flags(lines):
    """No real family: every flag of added tokens, unknown characters, other splits, no decoder."""
    steps = {
        "type": "Sequence",
        "pretokenizers": [
            split(r"\s+", "MergedWithNext"),
            split(r"[,.!?;]", "MergedWithPrevious"),
            {"type": "Digits", "individual_digits": False},
            {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True},
        ],
    }
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\r\n?"}, "content": "\n"},
        ],
    }
    vocab, merges = train(
        lines, normalizer, steps, 600, limit_alphabet=80, special_tokens=["<unk>"]
    )
    size = len(vocab)
    tokens = [
        added(vocab["<unk>"], "<unk>"),
        added(size, "<mask>", lstrip=True),
        added(size + 1, "<end>", rstrip=True),
        added(size + 2, "lone", special=False, single_word=True),
        added(size + 3, "Åa", special=False, normalized=True),
        added(size + 4, "words and", special=False, normalized=True, lstrip=True, rstrip=True),
    ]
    model = {"vocab": vocab, "merges": merges, "unk_token": "<unk>"}
    return file(model, tokens, normalizer, steps, None, None)


FAMILIES = {
    "smollm2": smollm2,
    "qwen2": qwen2,
    "llama3": llama3,
    "llama2": llama2,
    "mistral": mistral,
    "flags": flags,
}

# --- Splits alone ---------------------------------------------------------------------------------

SPLIT_TEXT = "ab--c  d,e, f\n--g12 ३4\u180e\u00a0x_e\u0301 ²\n\nA'LL ·²ç½+Ⓐ"


def split_goldens():
    steps = [
        {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
        for pattern in [
            {"String": "--"},
            {"Regex": r"\s"},
            {"Regex": r"[^\S\n]+|\w+"},
            {"Regex": r"(?=e)|g$|^A"},
            {"Regex": r"\w+|[^\w\s]+"},
        ]
        for behavior in [
            "Removed",
            "Isolated",
            "MergedWithPrevious",
            "MergedWithNext",
            "Contiguous",
        ]
        for invert in [False, True]
    ]
    steps += [{"type": "Digits", "individual_digits": digits} for digits in [False, True]]
    steps += [
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}
        for scheme in ["always", "first", "never"]
        for split in [False, True]
    ]
    steps += [{"type": "Metaspace", "replacement": "_", "add_prefix_space": True}]
    result = []
    for step in steps:
        shell = json.loads(tokenizers.Tokenizer(models.BPE()).to_str()) | {"pre_tokenizer": step}
        pre_tokenizer = tokenizers.Tokenizer.from_str(json.dumps(shell)).pre_tokenizer
        pieces = [piece for piece, _ in pre_tokenizer.pre_tokenize_str(SPLIT_TEXT)]
        result.append({"pre_tokenizer": step, "pieces": pieces})
    return {"text": SPLIT_TEXT, "splits": result}


# --- Output ---------------------------------------------------------------------------------------


def fnv1a(ids):
    """FNV-1a, 64 bits, over the ids as 4 little-endian bytes each."""
    value = 0xCBF29CE484222325
    for byte in b"".join(id.to_bytes(4, "little") for id in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def summary(ids):
    return {"count": len(ids), "fnv1a": fnv1a(ids)}


def expectations(tokenizer, atoms):
    result = {"vocab_size": max(tokenizer.get_vocab().values()) + 1, "sections": {}}
    for name, text in SECTIONS.items():
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        result["sections"][name] = {
            "ids": ids,
            "plain": len(tokenizer.encode(text, add_special_tokens=False).ids),
            "decoded": tokenizer.decode(ids, skip_special_tokens=True),
        }
    result["mixed"] = summary(tokenizer.encode(mixed_text(atoms)).ids)
    return result


def write(path, value, indent=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators) + "\n"
    path.write_text(text, encoding="utf-8")


def real_smollm2(folder, atoms):
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    result = {name: summary(tokenizer.encode(text).ids) for name, text in SECTIONS.items()}
    return {"sections": result, "mixed": summary(tokenizer.encode(mixed_text(atoms)).ids)}


def main():
    parser = argparse.ArgumentParser(description="Makes testdata/tokenizers.")
    parser.add_argument("--smollm2", metavar="FOLDER", help="folder of the real tokenizer.json")
    options = parser.parse_args()
    atoms = make_atoms()
    lines = training_text(atoms)
    write(
        ROOT / "texts.json", {"sections": SECTIONS, "atoms": atoms, "mixed_bytes": MIXED_BYTES}, 1
    )
    write(ROOT / "splits.json", split_goldens())
    for name, make in FAMILIES.items():
        contents = make(copy.copy(lines))
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(contents))
        write(ROOT / name / "tokenizer.json", contents)
        write(ROOT / name / "expected.json", expectations(tokenizer, atoms))
    if options.smollm2:
        write(ROOT / "smollm2_real.json", real_smollm2(options.smollm2, atoms), 1)


if __name__ == "__main__":
    main()
