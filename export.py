#!/usr/bin/env python3
"""Convert a Gemma 4 checkpoint (Hugging Face folder, GGUF or hub id) to the flat model file of gemma4.c."""

# ---- Numbers: block formats and layouts ----------------------------------------------------------

# ---- Tokenizer blob -------------------------------------------------------------------------------


def tokenizer_blob(source, n_vocab=None):
    """The tokenizer section of a model file. Returns (blob: bytes, specials: dict of control token name -> id).

    source   a parsed tokenizer.json (dict with "model"), or GGUF metadata as a flat dict of plain Python values
             (dict with "tokenizer.ggml.tokens"; lists, strings, numbers; general.architecture if known)
    n_vocab  rows of the embedding; ids without a token get empty text. None: the highest id + 1.
    Raises ValueError for anything the engine could not reproduce exactly.
    """
    raise NotImplementedError

# ---- Sources: safetensors, GGUF, hub --------------------------------------------------------------

# ---- Text decoder ---------------------------------------------------------------------------------

# ---- Vision and audio towers ----------------------------------------------------------------------

# ---- The model file ------------------------------------------------------------------------------

# ---- Command line ---------------------------------------------------------------------------------
