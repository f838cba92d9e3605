"""How texts become words: named analyzers, and callables."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["LANGUAGES", "Analyzer", "Tokens", "check_name"]

Analyzer = Callable[[str], Sequence[str]]

LANGUAGES = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
NAMES = ("default", "cjk", *LANGUAGES)
_LONGEST = 100  # bytes of a word; longer ones are no words


def check_name(name: str) -> str:
    """Return an analyzer's name; ValueError if there is none of it."""
    if name not in NAMES:
        raise ValueError(f"analyzer: expected one of {', '.join(NAMES)}, got {reprlib.repr(name)}")
    return name


class Tokens:
    """An analyzer in use; needs tantivy."""

    def __init__(self, analyzer: str | Analyzer) -> None:
        import tantivy

        self._tantivy = tantivy
        self._callable = None if isinstance(analyzer, str) else analyzer
        kept = tantivy.Tokenizer.ngram(1, 2) if analyzer == "cjk" else tantivy.Tokenizer.simple()
        builder = tantivy.TextAnalyzerBuilder(kept).filter(tantivy.Filter.remove_long(_LONGEST))
        builder = builder.filter(tantivy.Filter.lowercase())
        if analyzer == "default":
            builder = builder.filter(tantivy.Filter.ascii_fold())
        elif isinstance(analyzer, str) and analyzer in LANGUAGES:
            builder = builder.filter(tantivy.Filter.stemmer(LANGUAGES[analyzer]))
        self.native = builder.build()

    def words(self, text: str) -> list[str]:
        """Return the words of a text, in order.

        Raises
        ------
        TypeError
            If a callable returns anything but strings.
        """
        if self._callable is None:
            return list(self.native.analyze(text))
        words = self._callable(text)
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"analyzer: expected a list of strings, got {reprlib.repr(words)}")
        return [word for word in words if word]

    def add_to(self, document: Any, field: str, text: str) -> None:
        """Add a text to a document of tantivy."""
        if self._callable is None:
            document.add_text(field, text)
            return
        tokens = [
            self._tantivy.Token(word, position, 0, 0)
            for position, word in enumerate(self.words(text))
        ]
        document.add_pre_tokenized_text(field, self._tantivy.PreTokenizedString(text, tokens))
