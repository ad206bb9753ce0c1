"""What a kernel with a closed-form gradient says to whoever asks for a second derivative."""

from functools import partial

from unialign._single_backward import first_order_only as _first_order_only

__all__ = ["first_order_only"]

first_order_only = partial(
    _first_order_only,
    refusal=(
        "this loss has a closed-form gradient and no second derivative; for one, call it inside "
        "`with unialign.ops.use_backend('reference'):`, which keeps whole B x B matrices"
    ),
)
