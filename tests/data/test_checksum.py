"""Test `.npy` bytes, SHA-256 and canonical JSON, from which checksums are computed."""

import io
from typing import Any

import numpy as np
import pytest

from unialign.io._files import digest
from unialign.io._json import canonical_json
from unialign.io._npy import CHUNK_BYTES, file_chunks, npy_chunks


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (1, 1), (CHUNK_BYTES // 4 + 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_])
def test_pieces_are_the_file_numpy_writes(shape: tuple[int, ...], dtype: Any) -> None:
    array = np.ones(shape, dtype=dtype)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    assert b"".join(npy_chunks(array)) == buffer.getvalue()


def test_sha256() -> None:
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    assert digest([b"a", b"", b"bc"]) == digest(file_chunks(io.BytesIO(b"abc"))) == expected


def test_canonical_json() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == b'{"a":null,"b":[1,"\\u00e9"]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("inf"))
