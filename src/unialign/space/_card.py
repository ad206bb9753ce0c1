"""The model card of a space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unialign._version import __version__
from unialign.io import is_hub_id, marked
from unialign.space._towers import CLOSED, Tower

if TYPE_CHECKING:
    from unialign.space._space import Space

# Values for an unknown license.
_UNKNOWN = ("unknown", "none", "")
# Largest number of combinations of modalities in the card.
_ROWS = 20
# Inputs of each kind of media in the examples.
_INPUTS = {
    "text": '["a text", "another text"]',
    "image": '["photo.png", None]',
    "audio": '["sound.wav", None]',
    "video": '["film.mp4", None]',
    "array": "[[0.5, 1.0], None]",
}
_HUB_KINDS = ("transformers", "sentence-transformers", "sentence_transformers", "timm", "open-clip", "open_clip")


def model_card(space: "Space", metadata: Mapping[str, Any], towers: Sequence[Tower]) -> str:
    sections = [_introduction(space, metadata, towers), _modalities(space), _usage(space, towers)]
    sections += [_data(_part(metadata, "data")), _earlier(metadata), _replaced(metadata)]
    sections += [_evaluation(_part(metadata, "evaluation"))]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{marked(_front_matter(space, towers), is_yaml=True)}\n---\n\n{marked(body)}\n"


def license_of(reference: Mapping[str, Any]) -> str:
    """Return the license of an encoder, in lower case; `unknown` if it is not known."""
    found = str(reference.get("license") or "unknown").strip().lower()
    return "unknown" if found in _UNKNOWN else found


def _introduction(space: "Space", metadata: Mapping[str, Any], towers: Sequence[Tower]) -> str:
    # Metadata given by the user may lack the entries that `fit` writes, or have other types.
    training, data, form = (_part(metadata, name) for name in ("training", "data", "closed_form"))
    made = f"Trained with `{training['objective']}`" if "objective" in training else "Made"
    if form and training.get("epochs", 0) == 0:
        method = {"gcca": "GCCA", "ridge": "ridge regression"}.get(str(form.get("method")), "a closed form")
        made = f"Computed by kernel {method}" if form.get("kernel") == "rbf" else f"Computed by {method}"
    source = f" on `{data['name']}` (fingerprint `{data.get('fingerprint')}`)" if "name" in data else ""
    if towers:
        kinds = " and ".join(tower.kind for tower in towers)
        inputs = f"It maps {kinds} to unit vectors, with the encoders in this folder."
    elif space.encoders:
        media = [
            name if name == reference["media"] else f"{reference['media']} (`{name}`)"
            for name, reference in space.encoders.items()
        ]
        inputs = f"It maps {' and '.join(media)} to unit vectors, with the encoders in the table."
    else:
        inputs = "It maps features of frozen encoders, not raw media."
    return (
        "# A shared embedding space\n\n"
        f"{made}{source} (unialign {__version__}). The space has {len(space.dims)} modalities, {space.dim} "
        f"dimensions,\nhead `{space.head}` and input norm `{space.input_norm}`. {inputs}"
    )


def _modalities(space: "Space") -> str:
    if not space.encoders:
        return _table(("modality", "dim of its features"), space.dims.items())
    rows = []
    for name, dim in space.dims.items():
        reference = space.encoders.get(name)
        encoder = "features only" if reference is None else f"`{reference['kind']}:{reference['name']}`"
        if reference is not None and reference.get("revision"):
            encoder += f" at `{str(reference['revision'])[:12]}`"
        if reference is not None:
            encoder += _stored_as(reference)
        rows.append((name, dim, encoder, "" if reference is None else reference.get("license") or "unknown"))
    return _table(("modality", "dim of its features", "encoder", "license of the encoder"), rows)


def _stored_as(reference: Mapping[str, Any]) -> str:
    if "adapter" in reference:
        return f", trained with an adapter of rank {reference['adapter'].get('r')}"
    return ", weights in this folder" if reference.get("stored") == "inside" else ""


def _usage(space: "Space", towers: Sequence[Tower]) -> str:
    name, dim = next(iter(space.dims.items()))
    inputs, comment = f'{{"{name}": features}}', f"(items, {dim}) -> unit rows"
    if space.encoders:
        inputs = ", ".join(f'"{name}": {_INPUTS[found["media"]]}' for name, found in list(space.encoders.items())[:2])
        inputs, comment = f"{{{inputs}}}", "unit rows; None is absent, a row of zeros"
    snippet = f"""```python
import unialign as ua

space = ua.Space.from_pretrained("path or owner/name of this folder")
embeddings = space.encode({inputs})  # {comment}
```"""
    if not towers:
        return snippet
    calls = "\n".join(f"{tower.kind} = model.encode({_TOWER_INPUTS[tower.kind]})" for tower in towers)
    return f"""```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path or owner/name of this folder")
{calls}
```

`Space` also reads the folder:

{snippet}"""


_TOWER_INPUTS = {"text": '["a text"]', "image": '["photo.png"]', "audio": '["sound.wav"]', "video": '["film.mp4"]'}


def _data(data: Mapping[str, Any]) -> str:
    counts = data.get("combinations")
    if not isinstance(counts, list) or not all(isinstance(entry, Mapping) for entry in counts):
        return ""
    rows = [(", ".join(map(str, entry.get("modalities", []))), entry.get("items", "")) for entry in counts[:_ROWS]]
    if len(counts) > _ROWS:
        rows.append((f"{len(counts) - _ROWS} other combinations", ""))
    name = f" `{data['name']}`" if "name" in data else ""
    intro = f"The training items of{name or ' the data'} by the modalities that they have:"
    license = f"License of the data: {data.get('license') or 'unknown'}."
    return f"## Training data\n\n{intro}\n\n{_table(('modalities', 'items'), rows)}\n\n{license}"


def _earlier(metadata: Mapping[str, Any]) -> str:
    """Describe the runs on other data, if only some modalities of a space were trained."""
    lines, found = [], _part(metadata, "earlier")
    while found:
        training, data = _part(found, "training"), _part(found, "data")
        names = training.get("modalities")
        subject = ", ".join(map(str, names)) if isinstance(names, list) else "all modalities"
        if isinstance(trained := _part(found, "init_from").get("train"), list):
            subject = f"{', '.join(map(str, trained))} only"
        source = f" on `{data['name']}` (fingerprint `{data.get('fingerprint')}`)" if "name" in data else ""
        objective = f" with `{training['objective']}`" if "objective" in training else ""
        lines.append(f"- {subject}{objective}{source}, {data.get('training_items', '?')} training items")
        found = _part(found, "earlier")
    if not lines:
        return ""
    trained = _part(metadata, "init_from").get("train")
    names = ", ".join(map(str, trained)) if isinstance(trained, list) else "a part"
    return (
        f"## Earlier training\n\nOnly {names} of this space was trained as described above. The other modalities have "
        "the weights of an earlier space, trained on:\n\n" + "\n".join(lines)
    )


def _replaced(metadata: Mapping[str, Any]) -> str:
    entries = metadata.get("replaced")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        return ""
    rows = []
    for entry in entries:
        overlap = _part(entry, "overlap")
        expected = f"{_number(overlap.get('estimate'))} ({_interval(overlap)})"
        names = [entry.get(key) or "not recorded" for key in ("old", "new")]
        rows.append((entry.get("modality", ""), *names, entry.get("pairs", ""), expected))
    head = ("modality", "old encoder", "new encoder", "items", "expected overlap@10 with the old encoder")
    intro = "A linear head maps the features of the new encoder to the embeddings of the old one."
    return f"## Replaced encoders\n\n{intro}\n\n{_table(head, rows)}"


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    metrics = evaluation.get("metrics")
    if not isinstance(metrics, list) or not metrics or not all(isinstance(entry, Mapping) for entry in metrics):
        return ""
    rows = [(entry.get("name", ""), _number(entry.get("value")), _interval(entry)) for entry in metrics]
    on = f"{evaluation.get('items', '?')} items of the split `{evaluation.get('split', '?')}`"
    return f"## Evaluation\n\nOn {on}:\n\n{_table(('metric', 'value', '95 % interval'), rows)}"


def _interval(entry: Mapping[str, Any]) -> str:
    if entry.get("low") is None or entry.get("high") is None:
        return ""
    return f"{_number(entry['low'])} to {_number(entry['high'])}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _front_matter(space: "Space", towers: Sequence[Tower]) -> str:
    kinds = [tower.kind for tower in towers] or [str(reference["media"]) for reference in space.encoders.values()]
    if towers:
        tags = ["unialign", "sentence-transformers", "multimodal"]
        lines = ["library_name: sentence-transformers", "pipeline_tag: feature-extraction"]
    else:
        tags, lines = ["multimodal", "embeddings"], ["library_name: unialign"]
    lines.append(f"tags: [{', '.join([*tags, *dict.fromkeys(kinds)])}]")
    if license := _license(space, towers):
        lines.append(f"license: {license}")
    bases = [str(found["name"]) for found in space.encoders.values() if found["kind"] in _HUB_KINDS]
    if bases := [name for name in dict.fromkeys(bases) if is_hub_id(name)]:
        lines.append(f"base_model: [{', '.join(bases)}]")
    return "\n".join(lines)


def _license(space: "Space", towers: Sequence[Tower]) -> str | None:
    """Return the strictest license of the encoders; None without encoders, or if a tower has none or they differ."""
    if towers:
        found = {tower.license for tower in towers}
        # A folder with encoders under different licenses has no single license.
        return None if len(found) > 1 else found.pop()
    licenses = [license_of(reference) for reference in space.encoders.values()]
    return max(licenses, key=_strictness, default=None)


def _strictness(license: str) -> int:
    if license == "unknown" or license in CLOSED:
        return 4
    words = license.split("-")
    if {"nc", "nd"} & set(words) or "noncommercial" in license:
        return 3
    if "sa" in words or license.startswith(("gpl", "agpl")):
        return 2
    return 1 if license.startswith(("lgpl", "mpl")) else 0


def _part(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = metadata.get(name)
    return part if isinstance(part, Mapping) else {}


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
