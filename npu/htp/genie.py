"""Runs a Genie bundle on tokens, in libGenie of the package onnxruntime-qnn: the runtime that a phone
has, on the emulator.

usage: genie.py BUNDLE --tokens 1,2,3 --count N

Says the tokens that it generates, greedily. The bundle is one of `qnpu export --to genie --separate`.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import onnxruntime_qnn as qnn

from report import Refused, run_generator

TOKENS = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32, ctypes.c_int,
                          ctypes.c_void_p)


def called(library: ctypes.CDLL, function: str, *arguments: Any) -> None:
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise Refused(f"{function} of Genie failed with status {status}")


def generate(bundle: Path, prompt: list[int], count: int) -> list[int]:
    os.chdir(bundle)  # the configuration names files beside it
    config = json.loads(Path("genie_config.json").read_text(encoding="utf-8"))
    config["dialog"]["engine"]["backend"]["QnnHtp"]["cpu-mask"] = "0x3"
    genie = ctypes.CDLL(str(Path(qnn.get_library_path()).parent / "libGenie.so"))
    handle, dialog = ctypes.c_void_p(), ctypes.c_void_p()
    called(genie, "GenieDialogConfig_createFromJson", json.dumps(config).encode(),
           ctypes.byref(handle))
    called(genie, "GenieDialog_create", handle, ctypes.byref(dialog))
    called(genie, "GenieDialog_setMaxNumTokens", dialog, ctypes.c_uint32(count))
    found: list[int] = []
    callback = TOKENS(lambda tokens, n, _state, _user: found.extend(tokens[i] for i in range(n)))
    called(genie, "GenieDialog_tokenQuery", dialog, (ctypes.c_uint32 * len(prompt))(*prompt),
           len(prompt), 0, callback, None)
    called(genie, "GenieDialog_free", dialog)
    return found


if __name__ == "__main__":
    run_generator(generate)
