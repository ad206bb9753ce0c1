"""A memory queue of rows of earlier batches, used as additional negatives (He et al. 2020, MoCo).

Shapes: `S` rows of the queue, `E` rows stored so far, `N` present rows of a batch, `D` dimension.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.batch import Batch, ZeroRows, make_batch
from unialign.distributed import processes_of
from unialign.errors import ConfigError, ShapeError
from unialign.losses._consistency import call_text
from unialign.losses._gather import gather_batch


class MemoryQueue(nn.Module):
    """Store the latest rows of each modality as additional negatives for `InfoNCE` (MoCo, arXiv 1911.05722).

    `loss(z, ids=ids, queue=queue)` uses the stored rows as additional keys; `queue.push(z, ids=ids)` then stores the
    rows of the batch (or those of a momentum encoder). The oldest rows are removed first. Rows are stored normalized
    and without gradient in buffers, so `state_dict` contains the rows. With ids, rows with the id of a query are masked
    for this query. Without ids, a row is a negative of every query, even of a query of the same item in the next epoch.

    Args:
        size: maximum number of rows of each modality, at least 1.

    Example:
        >>> import torch, unialign
        >>> loss, queue = unialign.losses.InfoNCE("text"), unialign.losses.MemoryQueue(64)
        >>> for step in range(3):
        ...     z = {"image": torch.randn(8, 4), "text": torch.randn(8, 4)}
        ...     ids = torch.arange(8) + 8 * step
        ...     total = loss(z, ids=ids, queue=queue).total
        ...     queue.push(z, ids=ids)
        >>> len(queue)
        24
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        check_integer("size", size, low=1)
        self.size = size

    def __len__(self) -> int:
        """Return the number of stored rows, the maximum over modalities."""
        return max((len(self.stored(name)[0]) for name in self.modalities), default=0)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that have buffers."""
        return tuple(_modality(key) for key in self._buffers if key.startswith("rows/"))

    @property
    def description(self) -> str:
        """The numbers of stored rows, which must be equal on all processes."""
        return f" with {', '.join(f'{len(self.stored(name)[0])} of {name!r}' for name in self.modalities) or 'no rows'}"

    def stored(self, modality: str) -> tuple[Tensor, Tensor | None]:
        """Return the (E, D) unit rows of a modality and their (E,) ids; None if rows were stored without ids."""
        rows_SD, count = self._buffer("rows", modality), int(self._buffer("count", modality))
        ids_S = self._buffers.get(_key("ids", modality))
        stop = min(count, self.size)
        return rows_SD[:stop], None if ids_S is None else ids_S[:stop]

    # Buffers created in inference mode cannot be modified outside inference mode.
    @torch.inference_mode(False)
    @torch.no_grad()
    def push(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
        group: Any = "auto",
        zero_rows: ZeroRows = "error",
    ) -> None:
        """Store the present rows of a batch; with several processes, every process stores the rows of all processes.

        Args:
            embeddings, present, ids, group, zero_rows: as for the objective. Pass ids at every push or at none.

        Raises:
            ShapeError, NonFiniteError, ConfigError: as for the objective; rows of a different dimension; ids at only
                some pushes.
        """
        shared = processes_of(group)
        if shared is None:
            batch = make_batch(embeddings, present=present, ids=ids, minimum=1, zero_rows=zero_rows)
        else:
            settings = {"size": self.size}
            call = call_text("memory_queue", settings, gradients=False, parameters=[], draw=0, inputs=self.description)
            batch = gather_batch(
                embeddings, present=present, ids=ids, group=shared, call=call, zero_rows=zero_rows, minimum=1
            )
        self._check(batch)
        for m, name in enumerate(batch.names):
            present_B = batch.present_MB[m]
            self._store(name, batch.z_MBD[m][present_B], None if batch.ids_B is None else batch.ids_B[present_B])

    def _check(self, batch: Batch) -> None:
        for name in batch.names:
            if _key("rows", name) not in self._buffers:
                continue
            rows_ED, ids_E = self.stored(name)
            if rows_ED.shape[1] != batch.z_MBD.shape[2]:
                raise ShapeError(
                    f"the queue has rows of dim {rows_ED.shape[1]} for {name!r}, got dim {batch.z_MBD.shape[2]}"
                )
            if (ids_E is None) != (batch.ids_B is None):
                raise ConfigError("the queue would contain rows with and without ids; give ids at every push, or never")

    def _store(self, name: str, rows_ND: Tensor, ids_N: Tensor | None) -> None:
        if _key("rows", name) not in self._buffers:
            self.register_buffer(_key("rows", name), rows_ND.new_zeros(self.size, rows_ND.shape[1]))
            self.register_buffer(_key("count", name), torch.zeros((), dtype=torch.int64))
            if ids_N is not None:
                self.register_buffer(_key("ids", name), ids_N.new_zeros(self.size))
        count = self._buffer("count", name)
        latest_ND = rows_ND[-self.size :]
        first = int(count) + len(rows_ND) - len(latest_ND)
        position_N = torch.arange(first, first + len(latest_ND), device=rows_ND.device) % self.size
        rows_SD = self._buffer("rows", name)
        rows_SD[position_N.to(rows_SD.device)] = latest_ND.to(rows_SD)
        if ids_N is not None:
            ids_S = self._buffer("ids", name)
            ids_S[position_N.to(ids_S.device)] = ids_N[-self.size :].to(ids_S.device)
        count += len(rows_ND)

    def _buffer(self, kind: str, modality: str) -> Tensor:
        buffer = self._buffers[_key(kind, modality)]
        assert buffer is not None
        return buffer

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any, **options: Any) -> None:
        """A new queue lacks the buffers of the modalities in the state dict."""
        known = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
        for key in [key for key in self._buffers if key not in known]:
            del self._buffers[key]
        for key in known:
            if key.startswith(("rows/", "ids/", "count/")):
                value = state_dict[prefix + key]
                if key.startswith("rows/") and len(value) != self.size:
                    raise ConfigError(
                        f"the stored queue has size {len(value)}, but this queue has size {self.size}; use equal sizes"
                    )
                self.register_buffer(key, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *rest, **options)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _key(kind: str, modality: str) -> str:
    # Names of buffers must not contain a dot.
    return f"{kind}/{quote(modality, safe=' ').replace('.', '%2E')}"


def _modality(key: str) -> str:
    return unquote(key.partition("/")[2])
