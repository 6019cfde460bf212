"""Turns a GGUF file into a Hugging Face model folder (see `scripts/fetch-model --help`)."""
