"""Map the features of frozen encoders to a shared unit sphere.

Shapes: `B` rows, `W` dimension of a modality's features, `D` dimension of the space.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice, check_integer
from unialign._html import html_table
from unialign.batch import as_dense
from unialign.config import ExportFormat, Head, InputNorm, Inside, OnError, SpaceFormat, WhiteningMode
from unialign.errors import ConfigError
from unialign.io import load_folder, local_folder
from unialign.space._encode import encode_rows
from unialign.space._encode_store import encode_store
from unialign.space._encoders import LoadedEncoders, check_references, set_encoders
from unialign.space._evaluating import evaluating
from unialign.space._export import export
from unialign.space._inverse import invert_frozen
from unialign.space._output_affine import OutputAffine, check_output_affine, set_output_affine
from unialign.space._prepare import fit_stages, kernel_of
from unialign.space._raw import BrokenInput, encoded_inputs
from unialign.space._saving import FILES, push, save
from unialign.space._stages import check_linear, make_stage
from unialign.space._validation import (
    check_batch,
    check_kernel,
    check_names,
    check_sizes,
)
from unialign.space._whitening import check_frozen

if TYPE_CHECKING:
    from unialign.data import EmbeddingStore, Overwrite
    from unialign.encoders import Encoder

_KERNEL_SETTINGS = ["regularization", "landmarks", "kernel_sizes"]


class Space(nn.Module):
    """A model with one head per modality that maps features to a shared unit sphere.

    Examples:
        >>> space = Space({"image": 512, "text": 384}, dim=64)
        >>> space.encode({"text": torch.randn(3, 384)})["text"].shape
        torch.Size([3, 64])

    Args:
        dims: mapping of modality to the dim of its features.
        dim: dimension D of the space.
        head: `mlp` (dropout, linear, GELU, dropout, linear), `linear` (dropout, linear without bias), or `kernel`
            (features of a Gaussian kernel, which `fit_normalizer` computes, then `linear`).
        hidden: number of units of the hidden layer of `mlp`.
        dropout: dropout probability in [0, 1), applied before every linear layer during training.
        input_norm: `standardize` (subtract the mean and divide by the standard deviation of each column, which
            `fit_normalizer` computes), `unit` (normalize rows to unit length) or `none`.
        frozen: mapping of modality to whitening mode, for modalities that keep the geometry of their encoder and have
            no head, such as the images of an unCLIP decoder. `whiten` centers the features and equalizes the variances
            along their `dim` leading principal axes; `center` keeps these variances. `inverse_transform` maps
            embeddings back to features.
        regularization: positive ridge penalty of the kernel features, divided by the number of training rows.
        landmarks: maximum number of landmarks of a modality. With more training rows, the kernel is approximated.
            `auto`: all rows if there are at most 5,000, otherwise 2,000 random rows.
        kernel_sizes: mapping of modality to its numbers of landmarks and kernel features, for a saved space with kernel
            heads. None: `fit_normalizer` sets them.
        linear: modalities with a linear head on standardized features, whatever `head` and `input_norm` are, such as a
            modality with a replaced encoder (see `unialign.replace_encoder`).
        output_affine: modalities whose unit embeddings are mapped by an affine map and normalized again, such as a
            repair of the modality gap (see `with_output_affine`).
        encoders: mapping of modality to the reference of the encoder that computes its features, such as
            `encoder.reference` of `unialign.encoders.create`. `encode` then also takes raw media of this modality.
        metadata: JSON object that describes how the space was created; it is saved with the space.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        dim: int = 128,
        head: Head = "mlp",
        hidden: int = 256,
        dropout: float = 0.0,
        input_norm: InputNorm = "standardize",
        frozen: Mapping[str, WhiteningMode] | None = None,
        regularization: float = 1e-3,
        landmarks: int | Literal["auto"] = "auto",
        kernel_sizes: Mapping[str, Sequence[int]] | None = None,
        linear: Sequence[str] = (),
        output_affine: Sequence[str] = (),
        encoders: Mapping[str, Mapping[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(dims, dim, hidden, dropout)
        check_kernel(regularization, landmarks, kernel_sizes, dims, [*(frozen or ()), *(linear or ())])
        if not isinstance(metadata, Mapping | None):
            raise ConfigError(f"metadata of a space must be a JSON object, got {metadata!r}")
        self.dims = dict(dims)
        self.dim, self.head, self.hidden = dim, head, hidden
        self.dropout, self.input_norm = float(dropout), input_norm
        self.frozen = check_frozen(frozen, dims, dim)
        self.linear = check_linear(linear, dims, self.frozen)
        self.output_affine = check_output_affine(output_affine, dims)
        self.regularization, self.landmarks = float(regularization), landmarks
        self.encoders = check_references(encoders, dims)
        self._loaded_encoders = LoadedEncoders()
        self.last_broken: tuple[BrokenInput, ...] = ()
        self.metadata: dict[str, Any] = dict(metadata or {})
        # Use lists instead of nn.ModuleDict, since names such as "type" or "rna.seq" cannot be attributes.
        self.features, self.heads = nn.ModuleList(), nn.ModuleList()
        check_choice("head", head, get_args(Head))
        check_choice("input_norm", input_norm, get_args(InputNorm))
        for name, in_dim in dims.items():
            stage, head_of = make_stage(self, name, in_dim, kernel_sizes)
            self.features.append(stage)
            self.heads.append(head_of)
        outputs = (OutputAffine(dim) if name in self.output_affine else nn.Identity() for name in dims)
        self.outputs = nn.ModuleList(outputs)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.dims)

    @property
    def kernel_sizes(self) -> dict[str, list[int]] | None:
        """Numbers of landmarks and of kernel features of each modality; None without fitted kernel heads."""
        kernels = zip(self.dims, map(kernel_of, self.features), strict=True)
        return {name: list(kernel.sizes) for name, kernel in kernels if kernel is not None and kernel.is_fitted} or None

    @property
    def prepared_dims(self) -> dict[str, int]:
        """Mapping of modality to the dim of the rows that `prepare` returns."""
        dims = self.dims | dict.fromkeys(self.frozen, self.dim)
        return dims | {name: sizes[1] for name, sizes in (self.kernel_sizes or {}).items()}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments except `metadata`, as JSON values."""
        names = ["dim", "head", "hidden", "dropout", "input_norm"]
        config = {name: getattr(self, name) for name in names + (_KERNEL_SETTINGS if self.head == "kernel" else [])}
        frozen = {"frozen": dict(self.frozen)} if self.frozen else {}
        outputs = {"linear": list(self.linear)} if self.linear else {}
        outputs |= {"output_affine": list(self.output_affine)} if self.output_affine else {}
        encoders = {"encoders": copy.deepcopy(self.encoders)} if self.encoders else {}
        return {"dims": dict(self.dims), **config, **frozen, **outputs, **encoders}

    def with_output_affine(self, layers: Mapping[str, tuple[Tensor, Tensor]]) -> "Space":
        """Return a copy in which the embeddings z of the given modalities become z weight + bias, normalized again.

        Args:
            layers: modality -> weight (D, D) and bias (D,), such as those of `ua.repair`.

        Raises:
            ConfigError: unknown modality, or a modality that already has an affine map.
            ShapeError, NonFiniteError: a weight or bias has a wrong shape, or is not finite.
        """
        check_names(layers, self.dims, "layers")
        for name in layers:
            if name in self.output_affine:
                raise ConfigError(f"{name!r} already has an affine map; start from the space without it")
        space = copy.deepcopy(self)
        space.output_affine = tuple(name for name in self.dims if name in (*self.output_affine, *layers))
        for name, (weight, bias) in layers.items():
            module = OutputAffine(self.dim).to(self._like())
            set_output_affine(module, name, weight, bias)
            space.outputs[self.modalities.index(name)] = module
        return space

    def with_encoders(self, encoders: Mapping[str, "Encoder | Mapping[str, Any] | str | None"]) -> "Space":
        """Return a copy that encodes raw media of the given modalities; the copy shares loaded encoders.

        Args:
            encoders: mapping of modality to the encoder of its features: an encoder of `unialign.encoders`, its name
                for `unialign.encoders.create`, or its reference. None removes the encoder of the space.

        Raises:
            ConfigError: unknown modality, or the dims of the encoder and the modality differ.
            DataError: the space already has another encoder of the modality.
        """
        space = copy.deepcopy(self)
        set_encoders(space, encoders)
        return space

    def encoder(self, name: str) -> "Encoder":
        """Return the encoder of raw media of a modality, which is loaded and checked at its first use.

        Raises:
            ConfigError: the modality is not in the space, or has no encoder that can be loaded.
            DataError: the encoder computes different features than when the space was created.
            MissingDependencyError: the encoder needs a package that is not installed.
        """
        check_names([name], self.dims, "encoder")
        if name not in self.encoders:
            raise ConfigError(f"the space has no encoder of {name!r}; add one with space.with_encoders")
        return self._loaded_encoders.get(name, self.encoders[name], self._like().device)

    def encode(
        self,
        inputs: Mapping[str, Tensor | NDArray[Any] | Sequence[Any]],
        *,
        present: Mapping[str, Tensor | NDArray[np.bool_]] | None = None,
        batch_size: int = 4096,
        dim: int | None = None,
        on_error: OnError = "raise",
    ) -> dict[str, Tensor]:
        """Embed raw media or features without gradient or dropout.

        Features are embedded in chunks, so that memory maps may exceed main memory.

        Args:
            inputs: mapping of modality to features, a real-valued array or tensor (B, W), or to raw media, a list or
                tuple of B values; modalities of the space may be omitted, and B may differ between modalities. Raw
                media need an encoder of the modality (see `encoders`). Their values are, by the kind of media: text:
                `str`; image: path, bytes, PIL image or uint8 array (H, W, 3); audio: path, bytes, `(array, rate)` or
                `{"array": array, "sampling_rate": rate}`; video: path or uint8 array (T, H, W, 3); array: vector. None
                and blank texts are absent.
            present: mapping of modality to a boolean mask (B,); all rows of modalities without a mask are present.
                Absent rows may have any values.
            batch_size: number of rows to process at a time, at least 1.
            dim: number of leading dimensions to keep and normalize, for spaces trained with `matryoshka_dims`; all by
                default.
            on_error: `raise` raises an error for raw media that cannot be decoded. `absent` treats them as absent and
                lists them in `last_broken`, a tuple of records with `modality`, `row`, `code` and `detail`.

        Returns:
            Mapping of modality to unit rows (B, D), on the device and in the dtype of the space. Absent rows are 0, so
            `z.any(1)` is the mask of the present rows of z.

        Raises:
            ConfigError: a modality is not in the space, `dim` is not from 1 to the dimension of the space, or raw media
                have an unsupported type or no encoder.
            MediaError: raw media cannot be decoded, or all their features are 0.
            DataError: the encoder cannot be loaded, or computes different features than when the space was created.
            MissingDependencyError: the encoder or the decoder needs a package that is not installed.
            ShapeError: features are not real numbers of shape (B, W), where W is the dim of the modality.
            NonFiniteError: a present row contains NaN or infinity, or is mapped to 0 and thus has no direction.
        """
        check_integer("batch_size", batch_size, low=1)
        check_integer("dim", self.dim if dim is None else dim, low=1, high=self.dim)
        check_choice("on_error", on_error, get_args(OnError))
        features, given, self.last_broken = encoded_inputs(self, inputs, present, on_error=on_error)
        masks = check_batch(features, given, self.dims)
        with evaluating(self), torch.no_grad():
            return {
                name: encode_rows(self, name, x, masks.get(name), batch_size=batch_size, dim=dim)
                for name, x in features.items()
            }

    def encode_store(
        self,
        store: "EmbeddingStore",
        path: str | os.PathLike[str],
        *,
        overwrite: "Overwrite" = "never",
        batch_size: int = 4096,
    ) -> "EmbeddingStore":
        """Embed the columns of a store in batches, and write them to a new store.

        Args:
            store: store to embed, of any size; its default modalities are embedded if the space has them.
            path: folder of the new store.
            overwrite: as in `EmbeddingStore.write`.
            batch_size: number of rows to process at a time, at least 1.

        Returns:
            The new store, with unit rows of dim D in float32, and the presence, ids, groups, labels, split and item
            names of the given store.

        Raises:
            ConfigError: the store has no modality of the space, or an option is invalid.
            ShapeError, NonFiniteError: as in `encode`; row numbers refer to the batch.
            DataError: as in `EmbeddingStore.write`.
        """
        return encode_store(self, store, path, overwrite=overwrite, batch_size=batch_size)

    def forward(
        self,
        features: Mapping[str, Tensor | NDArray[Any]],
        *,
        present: Mapping[str, Tensor | NDArray[np.bool_]] | None = None,
    ) -> dict[str, Tensor]:
        """Compute differentiable, unnormalized embeddings of features, for use as input to objectives.

        Args:
            features: mapping of modality to a tensor or array (B, W), which is converted to the device and dtype of the
                space; modalities may be omitted.
            present: mapping of modality to a boolean mask (B,). The outputs of absent rows are exactly 0 and have no
                gradient.

        Raises:
            ConfigError, ShapeError: as in `encode`.
        """
        parameter = self._like()
        masks = {name: mask.to(parameter.device) for name, mask in check_batch(features, present, self.dims).items()}
        prepared = {
            name: self.prepare(name, as_dense(x, repr(name), "(B, W)").to(parameter), present=masks.get(name))
            for name, x in features.items()
        }
        return self.project(prepared, present=masks)

    def prepare(self, name: str, x_BW: Tensor, *, present: Tensor | None = None) -> Tensor:
        """Apply the input normalization or whitening, and the kernel features if the head has any."""
        if present is not None:
            # Mask before any arithmetic, since NaN * 0 is NaN in both the value and the gradient.
            x_BW = torch.where(present[:, None], x_BW, 0.0)
        prepared_BW: Tensor = self.features[self.modalities.index(name)](x_BW)
        return prepared_BW

    def project(
        self, prepared: Mapping[str, Tensor], *, present: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Apply the heads and output affine maps to rows from `prepare`, without input validation."""
        places = {name: self.modalities.index(name) for name in prepared}
        raw = {name: self.outputs[i](self.heads[i](prepared[name])) for name, i in places.items()}
        for name, mask_B in (present or {}).items():
            if name in raw:
                raw[name] = torch.where(mask_B[:, None], raw[name], 0.0)
        return raw

    @torch.no_grad()
    def fit_normalizer(self, store: "EmbeddingStore", rows: NDArray[np.int64]) -> "Space":
        """Set the statistics of input normalization, kernel features and whitening from the present rows among `rows`.

        If the number of kernel features of a modality changes, its head is replaced by a new head with random weights.

        Raises:
            DataError: a modality has no present row, a frozen modality varies in fewer than D directions, or all rows
                of a modality with a kernel head are equal.
            ShapeError: a column of the store and its modality have different dims.
            NonFiniteError: a row of a frozen modality is not finite in float32.
        """
        fit_stages(self, store, rows)
        return self

    def inverse_transform(self, name: str, z: Tensor) -> Tensor:
        """Map rows of the space to features of a frozen modality, in the coordinates of its encoder.

        Args:
            name: a frozen modality.
            z: embeddings (B, D) of any modality, or mixtures of embeddings. Unit rows map to features of typical norm;
                shorter rows map to features closer to the mean.

        Returns:
            Features (B, W). The components of the features along axes other than the D principal axes equal those of
            the mean.

        Raises:
            ConfigError: the modality is not frozen, or has an output affine map.
            ShapeError: z is not of shape (B, D).
        """
        return invert_frozen(self, name, z)

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        format: SpaceFormat = "unialign",
        encoders: Mapping[str, Any] | None = None,
        inside: Inside = "auto",
    ) -> None:
        """Write `config.json`, `model.safetensors` and a model card `README.md` to a folder.

        A previously saved space is replaced atomically. Other files are kept. Of an existing card, only the text
        between the markers `unialign: start` and `unialign: end` is replaced.

        Args:
            format: `unialign` writes the files named above. `sentence-transformers` also writes the encoders and heads
                as modules that `SentenceTransformer(directory)` loads without `trust_remote_code`; it requires
                `unialign[sentence-transformers]`.
            encoders: mapping of modality to the encoder of its features, for `sentence-transformers`: a
                `SentenceTransformer`, its folder or Hub name, or a tuple (model, processor) or (model, processor,
                pooling) of transformers. Modalities without an encoder are stored for `Space.from_pretrained` only.
                None: the encoders of raw media of this space, if sentence-transformers computes the same features;
                a warning lists the others.
            inside: whether the encoders of raw media are stored in the subfolder `encoders`, as safetensors and JSON.
                `auto` stores those that no reference can rebuild, such as trained ones, and adapters; `always` stores
                all, `never` stores none.

        Raises:
            CheckpointError: a file cannot be written or the folder holds a model of another kind (existing files are
                kept), or the embeddings of the reloaded modules differ from those of the space.
            ConfigError: the format cannot express a head or an encoder, or an encoder cannot be stored inside; the
                message states the reason.
            MissingDependencyError: sentence-transformers is required and not installed.
        """
        save(self, directory, format=format, encoders=encoders, inside=inside)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        format: SpaceFormat = "unialign",
        encoders: Mapping[str, Any] | None = None,
        inside: Inside = "auto",
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a unialign space",
    ) -> str:
        """Upload the space to the Hugging Face Hub, and return the URL of the commit. Requires `unialign[hub]`.

        Only the files that `save_pretrained` writes are uploaded.

        Args:
            repo_id: `owner/name` of the repository, which is created if it does not exist.
            format, encoders, inside: as in `save_pretrained`.
            license: a statement that you may publish the encoders that are stored inside, such as their license.
                Required if the license of one of them is unknown or does not permit copies.
            private: whether a new repository is private. None: the owner's default.
            token: access token; None: that of `hf auth login`.
            revision: branch to commit to; None: the main branch.

        Raises:
            ConfigError: as in `save_pretrained`, or the license of an encoder inside does not permit copies.
            CheckpointError: `repo_id` is malformed, or the Hub rejects the upload.
            MissingDependencyError: `huggingface_hub` is not installed.
        """
        return push(
            self,
            repo_id,
            format=format,
            encoders=encoders,
            inside=inside,
            license=license,
            private=private,
            token=token,
            revision=revision,
            message=commit_message,
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat = "onnx",
        modalities: Sequence[str] | None = None,
        encoders: bool = False,
    ) -> None:
        """Write one file per modality that other runtimes load, and their description `io.json`, to a folder.

        A file maps features (B, W) in float32 to unit rows (B, D), for every B. Before the folder is written, each file
        is loaded and compared with the space at B = 1 and 17.

        Args:
            path: folder that does not exist, is empty, or holds an earlier export.
            format: `onnx` writes ONNX files, and requires `unialign[export]`. `torch` writes files for
                `torch.export.load`.
            modalities: modalities to export. None: all; with `encoders`, all that have an encoder.
            encoders: whether a file contains the encoder. Its inputs are then the arrays that the encoder prepares from
                the media, as described in `io.json`. Only built-in encoders can be exported.

        Raises:
            ConfigError: unknown modality, or an encoder or head that cannot be exported.
            CheckpointError: the folder has other files or cannot be written, or a file computes other embeddings.
            MissingDependencyError: onnx, onnxscript or onnxruntime is required and not installed.
        """
        export(self, path, format=format, modalities=modalities, encoders=encoders)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        encoders: Mapping[str, "Encoder | Mapping[str, Any] | str | None"] | None = None,
        cache: str | os.PathLike[str] | None = None,
        offline: bool | None = None,
    ) -> Self:
        """Load a space from a folder, or from the Hugging Face Hub (`owner/name`; requires `unialign[hub]`).

        Only JSON and safetensors files are read, and no code is executed. The space is on the CPU, in eval mode. The
        encoders of raw media are loaded at their first use. Their weights must have the stored checksums, and their
        features of a synthetic input are compared with the stored features.

        Args:
            source: folder, or `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            encoders: encoders to use instead of those that are loaded by reference, as in `with_encoders`. Modules that
                were wrapped by `unialign.encoders.wrap` must be given here; if one was trained with the space, its
                stored tensors are loaded into the given module.
            cache: folder of the downloaded files of the space; None: that of `huggingface_hub`.
            offline: whether nothing is downloaded. None: as set by the variable HF_HUB_OFFLINE.

        Raises:
            ConfigError, DataError: as in `with_encoders`.
            CheckpointError: there is no space, its schema is not supported, its weights are a pickle, or a file is
                truncated or altered.
            MissingDependencyError: `source` is not a folder and `huggingface_hub` is not installed.
        """
        folder = local_folder(
            source, "a saved space", revision=revision, allow_patterns=FILES, cache=cache, offline=offline
        )
        space = load_folder("space", folder, lambda settings, data: cls(**settings, metadata=data))
        space._loaded_encoders = LoadedEncoders(folder, offline=offline)
        set_encoders(space, encoders or {})
        return space

    def extra_repr(self) -> str:
        config = self.get_config() | ({"encoders": [*self.encoders]} if self.encoders else {})
        return ", ".join(f"{key}={value!r}" for key, value in config.items())

    def _repr_html_(self) -> str:
        heads = dict.fromkeys(self.dims, str(self.head)) | dict.fromkeys(self.linear, "linear") | self.frozen
        rows = [(name, f"{dim:,}", heads[name]) for name, dim in self.dims.items()]
        caption = f"Space of dim {self.dim}, input norm {self.input_norm}"
        return html_table(rows, head=("modality", "dim", "head"), caption=caption)

    def _like(self) -> Tensor:
        return next(chain(self.parameters(), self.buffers()))
