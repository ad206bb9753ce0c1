"""Test what users see who pass media where embeddings are expected, and folders of clip-retrieval."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unialign.data import Items, load_dataset
from unialign.errors import DataError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # Captions with commas look like tables.
        (folder / name).write_text("a cat, a dog\nred, blue\n" if name.endswith(".txt") else "x")
    return folder


def test_a_folder_of_media_says_what_it_holds_and_which_command_reads_it(tmp_path: Path) -> None:
    stems = ["cat", "dog", "sea/lion"]
    folder = make(tmp_path / "stamps", *(s + e for s in stems for e in (".png", ".txt", "_fr.ogg")), "notes.md")
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    message = str(caught.value)
    rules = "--rule image=.png --rule text=.txt --rule fr=_fr.ogg"
    assert message.startswith(
        f"{folder} is a folder of media without embeddings: it has 3 .ogg, 3 .png, 3 .txt, 1 .md."
    )
    assert f"unialign inspect {folder} {rules}; then encode them with: unialign embed" in message
    assert f"unialign train {folder} {rules}" in message
    items = Items.open(folder, rules={"fr": "_fr.ogg", "image": ".png", "text": ".txt"})
    assert items.keys.tolist() == ["cat", "dog", "sea/lion"]


def test_a_single_media_file_names_its_folder(tmp_path: Path) -> None:
    """A shell expands `stamps/*` to single files."""
    folder = make(tmp_path / "stamps", "cat.png", "cat.txt", "cat.ogg")
    for name, kind in (("cat.png", "image"), ("cat.ogg", "audio")):
        with pytest.raises(DataError, match=rf"{name} is a single {kind} file; pass its folder {folder}, "):
            Items.open(folder / name)


def test_other_sources_without_embeddings_name_the_command(tmp_path: Path) -> None:
    folder = make(tmp_path / "stamps", "cat.png")
    (tmp_path / "m.csv").write_text("image,text\nstamps/cat.png,a cat\n")
    with pytest.raises(DataError, match=r"found no embeddings; .*list media and texts with: unialign inspect"):
        load_dataset(tmp_path / "m.csv")
    Items.open(folder).save(tmp_path / "table")
    with pytest.raises(DataError, match=r"is an item table, which has no embeddings; .*unialign embed"):
        load_dataset(tmp_path / "table")
    with pytest.raises(DataError, match=r"is a folder without store\.json and without files that can be read"):
        load_dataset(make(tmp_path / "other", "a.bin"))


def test_arrays_beside_media_are_still_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "mixed", *(f"images/{i}.png" for i in range(4)), "captions/0.txt")
    np.save(folder / "image.npy", np.ones((8, 4), np.float32))
    np.save(folder / "text.npy", np.ones((8, 4), np.float32))
    with pytest.warns(UserWarning, match="no array `split`"):
        assert sorted(load_dataset(folder).columns) == ["image", "text"]


def write_parts(folder: Path, parts: range, *, keys: bool = True) -> Path:
    """Write the folders of clip-retrieval, with 4 items a part; the first number of row i is i + 1."""
    for i, part in enumerate(parts):
        rows = np.arange(4 * i, 4 * i + 4)
        for name, add in (("img_emb", 1), ("text_emb", 1001)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"{name}_{part}.npy", (rows[:, None] + [add, 1, 2]).astype(np.float16))
        if keys:
            (folder / "metadata").mkdir(exist_ok=True)
            columns = {"image_path": [f"{row}.jpg" for row in rows], "key": [f"{row:09d}" for row in rows]}
            pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{part}.parquet")
    return folder


@pytest.mark.filterwarnings("ignore:.*no array `split`", "ignore:.*guessed")
def test_parts_of_clip_retrieval_are_in_numeric_order(tmp_path: Path) -> None:
    store = load_dataset(write_parts(tmp_path / "laion", range(11)))
    assert store.items == 44
    assert store.array("img_emb")[:, 0].tolist() == list(range(1, 45))
    assert store.array("text_emb")[:, 0].tolist() == list(range(1001, 1045))
    assert store.array("img_emb").dtype == np.float16
    assert store.keys == tuple(f"{row:09d}" for row in range(44))


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("part", [0, 9, 10])
def test_parts_of_clip_retrieval_that_disagree_are_errors(tmp_path: Path, part: int, keys: bool) -> None:
    folder = write_parts(tmp_path / "laion", range(11), keys=keys)
    file = folder / "text_emb" / f"text_emb_{part}.npy"
    rows = np.load(file)
    np.save(file, rows[:3])
    with pytest.raises(DataError, match=rf"text_emb_{part}\.npy has 3 rows, but .*img_emb_{part}\.npy has 4"):
        load_dataset(folder)
    if keys:
        np.save(file, rows)
        metadata = folder / "metadata" / f"metadata_{part}.parquet"
        pq.write_table(pq.read_table(metadata).slice(0, 2), metadata)
        with pytest.raises(DataError, match=rf"metadata_{part}\.parquet has 2 rows, but .*img_emb_{part}\.npy has 4"):
            load_dataset(folder)


def test_missing_parts_of_clip_retrieval_are_errors(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "laion", range(5), keys=False)
    for name in ("img_emb", "text_emb"):
        (folder / name / f"{name}_3.npy").unlink()
    with pytest.raises(
        DataError, match=r"img_emb: of the parts up to img_emb_4, these are missing: 3; create them again"
    ):
        load_dataset(folder)
    with pytest.raises(DataError, match=r"no media files; it has 8 \.npy; if they are embeddings, .*unialign train"):
        Items.open(folder)
