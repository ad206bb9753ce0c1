"""Split texts into tokens with the library `tokenizers`."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.io import digest

__all__ = ["Tokens"]


@dataclass(frozen=True)
class Tokens:
    """Map a text to its token ids `input_ids` (T,), with the special tokens of the model.

    Attributes:
        tokenizer: content of the file `tokenizer.json`.
        max_length: maximum number of tokens; longer texts are truncated.
        prefix: text before each text.
        fill_to: length to which shorter texts are padded with `pad_id`, or None.
        pad_id: id of the padding token.
        lowercase: whether the text is converted to lower case.
        sha256: checksum of the files of the tokenizer, if `tokenizer` was made from other files.
    """

    tokenizer: str
    max_length: int
    prefix: str = ""
    fill_to: int | None = None
    pad_id: int = 0
    lowercase: bool = False
    sha256: str | None = None

    def __call__(self, text: str) -> dict[str, NDArray[Any]]:
        whole = self.prefix + text
        found = _load(self.tokenizer, self.max_length).encode(whole.lower() if self.lowercase else whole).ids
        missing = 0 if self.fill_to is None else self.fill_to - len(found)
        return {"input_ids": np.array(found + [self.pad_id] * missing, np.int64)}

    def to_json(self) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "tokenizer"}
        return {"type": "tokens", **settings, "sha256": self.sha256 or digest(self.tokenizer.encode())}


@lru_cache(maxsize=8)
def _load(tokenizer: str, max_length: int) -> Any:
    library = optional_module("tokenizers", "encoding texts", "transformers")
    loaded = library.Tokenizer.from_str(tokenizer)
    loaded.no_padding()
    loaded.enable_truncation(max_length)
    return loaded
