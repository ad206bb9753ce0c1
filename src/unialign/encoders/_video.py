"""Encode a video as the mean of the features of its frames.

Shapes: `n` videos, `F` frames of all videos, `D` length of the features.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unialign.encoders._built import Batch, BuiltEncoder
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._frames import EachFrame
from unialign.encoders._names import EncoderName
from unialign.encoders._reference import make_reference
from unialign.media import Kind

# Numbers the videos of a batch; names of entries of image encoders have no leading underscore.
_OWNER = "_video"


def mean_over_frames(
    spec: EncoderName, image_encoder: Encoder, frames: int, media: Kind, prepare: EachFrame
) -> Encoder:
    inner = image_encoder.reference
    decoding = replace(image_encoder.decoding, frames=frames)
    reference = make_reference(
        spec,
        media=media,
        dim=image_encoder.dim,
        architecture={"name": "frames", "pooling": "mean", "image": inner["architecture"], "kind": inner["kind"]},
        options={**inner["options"], "frames": frames},
        prepare={"type": "each-frame", "image": inner["prepare"]},
        decoding=decoding,
        weights=inner["weights"],
        dtype=inner["dtype"],
        license=inner["license"],
        packages=tuple(inner["packages"]),
    )

    def collate(prepared: Sequence[Prepared]) -> Batch:
        counts = [len(next(iter(video.values()))) for video in prepared]
        single = [
            {name: array[place] for name, array in video.items()}
            for video, count in zip(prepared, counts, strict=True)
            for place in range(count)
        ]
        owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        return {**image_encoder.collate(single), _OWNER: owner}

    def forward(batch: Batch) -> Tensor:
        owner = batch[_OWNER]
        features_FD = image_encoder.encode({name: value for name, value in batch.items() if name != _OWNER})
        owner = owner.to(features_FD.device)
        counts = torch.bincount(owner)
        sums = features_FD.new_zeros(len(counts), features_FD.shape[1]).index_add(0, owner, features_FD)
        return sums / counts[:, None]

    def write(folder: Any) -> dict[str, Any]:
        if isinstance(image_encoder, BuiltEncoder):
            return dict(image_encoder.write_files(folder))
        saved = image_encoder.save_files(folder)  # type: ignore[attr-defined]
        return {key: saved[key] for key in ("weights", "files") if key in saved}

    return BuiltEncoder(
        reference,
        decoding=decoding,
        prepare=prepare,
        collate=collate,
        forward=forward,
        module=image_encoder.module,
        write=write,
    )
