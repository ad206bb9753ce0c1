"""Import optional packages on first use."""

from importlib import import_module
from typing import Any

from unialign._checks import one_line
from unialign.errors import MissingDependencyError

__all__ = ["optional_module"]

# Names of packages that differ from those of their modules.
_PACKAGES = {
    "PIL": "Pillow",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "sentence_transformers": "sentence-transformers",
}


def optional_module(name: str, what: str, extra: str, *, hint: str = "") -> Any:
    """Import a module, or raise MissingDependencyError that says what needs it and which extra installs it.

    `hint` is appended to the command that installs the extra.
    """
    try:
        return import_module(name)
    # soundfile raises OSError without its C library, and torchvision RuntimeError if it does not match torch.
    except (ImportError, OSError, RuntimeError) as error:
        module = name.partition(".")[0]
        raise MissingDependencyError(
            f"{what} needs {_PACKAGES.get(module, module)}, which cannot be imported ({one_line(error)}): "
            f"pip install 'unialign[{extra}]'{hint}"
        ) from None
