"""Texts to vectors, by a function of a module or by a program: nothing of it is part of Vicinal."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["embed_by_command", "embed_by_name"]

_SECONDS = 120

Embed = Callable[[Sequence[str]], Any]


def embed_by_name(name: str) -> Embed:
    """Return a function of a module, given as "package.module:function".

    It takes a list of texts and returns an array_like of shape (n, dim).
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f'embed: expected "package.module:function", got {name!r}')
    found: Any = import_module(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"embed: {module} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"embed: expected a function, got {type(found).__name__}")
    function: Embed = found
    return function


def embed_by_command(command: str, seconds: float = _SECONDS) -> Embed:
    """Return a function that runs a program for each list of texts.

    The program gets a JSON list of texts on stdin and prints a JSON list of as many lists of
    numbers. It is run without a shell.
    """
    parts = shlex.split(command)
    if not parts:
        raise ValueError("embed: expected a command, got nothing")

    def embed(texts: Sequence[str]) -> Any:
        try:
            done = subprocess.run(
                parts,
                input=json.dumps(list(texts)).encode(),
                stdout=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"embed: the command took more than {seconds:g} s") from None
        except OSError as error:
            raise ValueError(f"embed: the command could not be run: {error.strerror}") from None
        if done.returncode:
            raise ValueError(f"embed: the command ended with {done.returncode}")
        try:
            vectors = np.asarray(json.loads(done.stdout), np.float32)
        except (ValueError, TypeError, RecursionError):
            raise ValueError("embed: expected a JSON list of lists of numbers") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(
                f"embed: expected {len(texts)} vectors, the command gave shape {vectors.shape}"
            )
        return vectors

    return embed
