#!/usr/bin/env python3
"""Quantizes a GGUF file as llama.cpp's own llama-quantize does: FROM TO Q4_0|Q8_0."""

from __future__ import annotations

import ctypes
import os
import sys

import llama_cpp

TYPES = {"Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}

source, destination, name = sys.argv[1:]
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = TYPES[name]
options.allow_requantize = True  # the source may be of 4 bits
temporary = destination + ".part"
status = llama_cpp.llama_model_quantize(source.encode(), temporary.encode(), ctypes.byref(options))
if status != 0:
    sys.exit(f"llama_model_quantize returned {status}")
os.replace(temporary, destination)
