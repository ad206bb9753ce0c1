"""Make the plan of a run from an item table, encoders and settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from unialign.config import EmbedConfig
from unialign.embedding._assemble import Cells
from unialign.embedding._plan import ColumnPlan, EncodingSettings, Plan
from unialign.embedding._prepare import ColumnWork
from unialign.encoders import Encoder
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.items import Items
from unialign.media import MediaLimits

__all__ = ["check_items", "column_work", "limits_of", "make_plan"]


def make_plan(
    items: Items, cells: Mapping[str, Cells], encoders: Mapping[str, Encoder], config: EmbedConfig, threads: int
) -> Plan:
    """Make the plan. `threads` must already be set, because references contain features of fixed inputs."""
    import torch

    columns = {}
    for name in items.modalities:
        encoder, found = encoders[name], cells[name][0]
        reference = encoder.reference
        if not np.isfinite(reference.get("witness", 0)).all():
            raise NonFiniteError(
                f"the encoder of {name!r}, {reference['kind']}:{reference['name']}, computes NaN or infinite features "
                "of a fixed test input; check its weights"
            )
        columns[name] = ColumnPlan(
            name=name,
            media=items.kinds[name],
            dim=encoder.dim,
            encoder=encoder.fingerprint,
            reference=reference,
            cells=len(found),
            cells_sha256=found.sha256,  # type: ignore[attr-defined]
        )
    settings = EncodingSettings(
        batch_size=config.batch_size,
        part_cells=config.part_cells,
        dtype=config.dtype,
        limits=limits_of(config),
        thumbnails=config.thumbnails,
        hash=config.hash,
        threads=threads,
        torch=str(torch.__version__),
        device_type=_device_type(encoders),
    )
    return Plan(
        items=items.fingerprint,
        rows=len(items),
        columns=columns,
        settings=settings,
        max_broken=config.max_broken,
        on_broken=config.on_broken,
        roots=items.roots,
    )


def column_work(plan: Plan, name: str, encoder: Encoder, **options: Any) -> ColumnWork:
    return ColumnWork(
        media=plan.columns[name].media,
        prepare=encoder.prepare,
        decoding=encoder.decoding,
        limits=plan.settings.limits,
        roots=plan.roots,
        thumbnails=plan.settings.thumbnails,
        hash=plan.settings.hash,
        **options,
    )


def limits_of(config: EmbedConfig) -> MediaLimits:
    whole = {name: int(value) for name, value in config.limits.items() if name != "seconds"}
    return MediaLimits(**whole, seconds=float(config.limits.get("seconds", MediaLimits().seconds)))


def check_items(items: Items) -> None:
    """Check the items before hours of encoding."""
    if not len(items):
        raise DataError(f"the item table {items.name!r} has no items; check the source and its rules")
    for name in items.modalities:
        if not items.present(name).any():
            raise DataError(
                f"no item has a cell of {name!r}; check its rule, or leave it out with items.select([...]) "
                "(--modalities)"
            )
    if items.has_split and (items.split < 0).any():
        row_n = np.flatnonzero(items.split < 0)
        raise DataError(
            f"{len(row_n):,} of {len(items):,} items have no split, among them {str(items.keys[row_n[0]])!r}; assign "
            "one to all items with items.with_split(...), or remove all with items.with_split(None)"
        )


def _device_type(encoders: Mapping[str, Encoder]) -> str:
    found = set()
    for encoder in encoders.values():
        first = None if encoder.module is None else next(encoder.module.parameters(), None)
        found.add("cpu" if first is None else first.device.type)
    others = found - {"cpu"}
    if len(others) > 1:
        raise ConfigError(f"the encoders are on devices of several types ({', '.join(sorted(others))}); use one")
    return others.pop() if others else "cpu"
