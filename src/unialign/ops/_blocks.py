"""Compute losses of small batches and their closed-form gradients from full B x B blocks.

Up to some hundred rows, the time of a loss depends on the number of operations rather than on their size, so all pairs
of modalities are computed together, in chunks that fit into a core's cache. The forward pass computes the gradients, so
no block is kept for the backward pass, and no logits are computed a second time.

Shapes: `M` modalities, `B` items, `D` dimension, `P` blocks (pairs of modalities, or modalities).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend, rowwise_backend
from unialign.ops._block_formulas import BlockFormula, BlockResult, KeyContrastBlocks

# Maximum number of rows of a block, and of entries of the blocks computed together (1 MiB of float32).
LARGEST_BLOCK, _CHUNK = 2048, 2**18

_Pairs = tuple[tuple[int, int], ...]
_NOTHING = nullcontext()


def fits_blocks(z: Tensor, *, sharded: bool, largest: int = LARGEST_BLOCK) -> bool:
    small = 0 < z.shape[-2] <= largest and not sharded
    return small and current_backend() in ("auto", "tiled") and rowwise_backend(z, sharded=False) is None


def different_ids(ids_B: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(B, B) matrix: 1 for pairs of items with different ids, else 0."""
    return None if ids_B is None else (ids_B[:, None] != ids_B).to(dtype)


def pair_losses(
    formula: BlockFormula, z_MBD: Tensor, pairs: Sequence[tuple[int, int]], parameters: tuple[Tensor, ...] = ()
) -> tuple[Tensor, ...]:
    """Scalar value of a formula for each of P pairs of modalities."""
    values: tuple[Tensor, ...] = _PairLosses.apply(formula, tuple(pairs), z_MBD, *parameters)  # type: ignore[no-untyped-call]
    return values


def self_losses(formula: BlockFormula, z_PBD: Tensor) -> tuple[Tensor, ...]:
    """Value of a symmetric formula over all pairs of rows of each of P modalities."""
    values: tuple[Tensor, ...] = _SelfLosses.apply(formula, z_PBD)  # type: ignore[no-untyped-call]
    return values


def key_contrasts(
    scale: float,
    x_PBD: Tensor,
    key_PBD: Tensor,
    positive_logits_PB: Tensor,
    *,
    masked_K: Tensor,
    parameters: tuple[Tensor, ...] = (),
) -> tuple[Tensor, ...]:
    """Cross-entropy over the rows of each of P sets of queries and keys; see `KeyContrastBlocks`. The parameters are
    empty or the scale as a tensor.
    """
    arguments = scale, masked_K, x_PBD, key_PBD, positive_logits_PB, *parameters
    values: tuple[Tensor, ...] = _KeyContrasts.apply(*arguments)  # type: ignore[no-untyped-call]
    return values


class _PairLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, formula: BlockFormula, pairs: _Pairs, z_MBD: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        gradient = any(ctx.needs_input_grad)
        by_SPBD = z_MBD.new_empty(2, len(pairs) if gradient else 0, *z_MBD.shape[1:])
        left, right = pairs[0] if _is_only_pair(pairs, z_MBD) else (0, 1)
        results = []
        for chunk, block_PBB in _chunks(len(pairs), z_MBD):
            x_PBD, y_PBD = _sides(z_MBD, pairs[chunk])
            result = formula.evaluate_(x_PBD, y_PBD, block_PBB, gradient=gradient)
            if gradient:
                by_PBD = _product(by_SPBD[left, chunk], block_PBB, y_PBD, result)
                _product(by_SPBD[right, chunk], block_PBB.mT, x_PBD, result)
                result = formula.with_parameters(result, x_PBD, by_PBD, block_PBB)
            results.append(result)
        value_P, by_parameters = _join(results)
        ctx.pairs = pairs
        ctx.save_for_backward(z_MBD, by_SPBD, *parameters, *by_parameters)
        return value_P.to(z_MBD.dtype).unbind()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        g_P = _joined_slopes(slopes)
        z_MBD, by_SPBD, *rest = ctx.saved_tensors
        parameters, by_parameters = _halves(rest)
        with _no_grad():
            unscaled = _is_one(g_P)
            if _is_only_pair(ctx.pairs, z_MBD):
                by_MBD = (by_SPBD if unscaled else by_SPBD * g_P).view(z_MBD.shape)
            else:
                places_MQ = z_MBD.new_tensor(_places(ctx.pairs, len(z_MBD)))
                by_MBD = ((places_MQ * g_P.repeat(2)) @ by_SPBD.flatten(2).flatten(0, 1)).view(z_MBD.shape)
            gradients = [by_MBD, *_by_parameters(parameters, by_parameters, None if unscaled else g_P)]
        return None, None, *(first_order_only(gradient, g_P, z_MBD, *parameters) for gradient in gradients)


class _SelfLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: BlockFormula, z_PBD: Tensor) -> tuple[Tensor, ...]:
        gradient = ctx.needs_input_grad[1]
        by_PBD = z_PBD.new_empty(z_PBD.shape if gradient else 0)
        results = []
        for chunk, block_PBB in _chunks(len(z_PBD), z_PBD):
            rows_PBD = z_PBD[chunk]
            result = formula.evaluate_(rows_PBD, rows_PBD, block_PBB, gradient=gradient)
            if gradient:
                _product(by_PBD[chunk], block_PBB, rows_PBD, result)
            results.append(result)
        ctx.save_for_backward(z_PBD, by_PBD)
        return _join(results)[0].to(z_PBD.dtype).unbind()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        g_P = _joined_slopes(slopes)
        z_PBD, by_PBD = ctx.saved_tensors
        with _no_grad():
            gradient_PBD = by_PBD * g_P[:, None, None]
        return None, first_order_only(gradient_PBD, g_P, z_PBD)


class _KeyContrasts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scale: float,
        masked_K: Tensor,
        x_PBD: Tensor,
        key_PBD: Tensor,
        positive_PB: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        gradient = any(ctx.needs_input_grad)
        by_x_PBD, by_key_PBD = (z.new_empty(z.shape if gradient else 0) for z in (x_PBD, key_PBD))
        every = KeyContrastBlocks(scale, learned=len(parameters) > 0, positive_PB=positive_PB, masked_K=masked_K)
        results = []
        for chunk, block_PBB in _chunks(len(x_PBD), x_PBD):
            x, keys, formula = x_PBD[chunk], key_PBD[chunk], every.chunk(chunk)
            result = formula.evaluate_(x, keys, block_PBB, gradient=gradient)
            if gradient:
                by_x = _product(by_x_PBD[chunk], block_PBB, keys, result)
                _product(by_key_PBD[chunk], block_PBB.mT, x, result)
                result = formula.with_parameters(result, x, by_x, block_PBB)
            results.append(result)
        value_P, by_parameters = _join(results)
        by_positive = [result.by_positive_PB for result in results if result.by_positive_PB is not None]
        by_positive_PB = torch.cat(by_positive).to(x_PBD.dtype) if gradient else x_PBD.new_empty(0)
        ctx.save_for_backward(
            x_PBD, key_PBD, positive_PB, *parameters, by_x_PBD, by_key_PBD, by_positive_PB, *by_parameters
        )
        return value_P.to(x_PBD.dtype).unbind()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        g_P = _joined_slopes(slopes)
        inputs, (by_x_PBD, by_key_PBD, by_positive_PB, *by_parameters) = _halves(ctx.saved_tensors)
        with _no_grad():
            g_PB, g_PBD = g_P[:, None], g_P[:, None, None]
            gradients = [by_x_PBD * g_PBD, by_key_PBD * g_PBD, by_positive_PB * g_PB]
            gradients += _by_parameters(inputs[3:], by_parameters, g_P)
        return None, None, *(first_order_only(gradient, g_P, *inputs) for gradient in gradients)


def _chunks(blocks: int, z: Tensor) -> Iterator[tuple[slice, Tensor]]:
    rows = z.shape[-2]
    step = min(blocks, max(1, _CHUNK // (rows * rows)))
    buffer_PBB = z.new_empty(step, rows, rows)
    for start in range(0, blocks, step):
        stop = min(start + step, blocks)
        yield slice(start, stop), buffer_PBB[: stop - start]


def _is_only_pair(pairs: _Pairs, z_MBD: Tensor) -> bool:
    """Then the gradients by the two sides, in the order of the modalities, are the gradient by `z_MBD`."""
    return len(pairs) == 1 and len(z_MBD) == 2


def _sides(z_MBD: Tensor, pairs: _Pairs) -> tuple[Tensor, Tensor]:
    left, right = zip(*pairs, strict=True)
    return _rows(z_MBD, left), _rows(z_MBD, right)


def _rows(z_MBD: Tensor, modalities: tuple[int, ...]) -> Tensor:
    first, stop = modalities[0], modalities[0] + len(modalities)
    if modalities == tuple(range(first, stop)):
        return z_MBD[first:stop]  # a view
    return torch.stack([z_MBD[m] for m in modalities])


def _product(out_PBD: Tensor, weight_PBB: Tensor, z_PBD: Tensor, result: BlockResult) -> Tensor:
    torch.baddbmm(out_PBD, weight_PBB, z_PBD, beta=0, alpha=result.factor, out=out_PBD)
    return out_PBD if result.factor_P is None else out_PBD.mul_(result.factor_P[:, None, None])


def _join(results: list[BlockResult]) -> tuple[Tensor, list[Tensor]]:
    if len(results) == 1:
        return results[0].value_P, list(results[0].by_parameters)
    parts = zip(*(result.by_parameters for result in results), strict=True)
    return torch.cat([result.value_P for result in results]), [torch.cat(by_P) for by_P in parts]


def _by_parameters(parameters: Sequence[Tensor], by_parameters: Sequence[Tensor], g_P: Tensor | None) -> list[Tensor]:
    pairs = zip(parameters, by_parameters, strict=True)
    if g_P is None:
        return [by_P.to(parameter.dtype).reshape(parameter.shape) for parameter, by_P in pairs]
    return [torch.dot(by_P, g_P).to(parameter.dtype).reshape(parameter.shape) for parameter, by_P in pairs]


def _joined_slopes(slopes: tuple[Tensor, ...]) -> Tensor:
    return slopes[0].reshape(1) if len(slopes) == 1 else torch.stack(slopes)


def _is_one(g_P: Tensor) -> bool:
    """Products with a gradient of 1 can be omitted. Other devices than the CPU are not checked, since reading a value
    would synchronize the device.
    """
    return g_P.numel() == 1 and g_P.device.type == "cpu" and float(g_P) == 1


def _no_grad() -> AbstractContextManager[Any]:
    """Return a cheaper context if gradients are already disabled."""
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING


def _halves(saved: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return list(saved[: len(saved) // 2]), list(saved[len(saved) // 2 :])


@lru_cache(maxsize=1024)
def _places(pairs: _Pairs, modalities: int) -> list[list[float]]:
    """(M, 2P) matrix: 1 where a modality is the first (first P columns) or second of a pair. A tensor created under
    `FakeTensorMode` has no values and must not be cached, so this is a list.
    """
    of_pairs = [m for side in zip(*pairs, strict=True) for m in side]
    return [[float(m == of_pair) for of_pair in of_pairs] for m in range(modalities)]
