"""Test the items of tar shards: keys, fields, members that lie apart, and damaged or hostile archives."""

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign.data import Items, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.media import Cell, load_cell


def info(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.size = len(data)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, data


def write(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return path


def texts(items: Items, name: str) -> list[str | None]:
    """Return the bytes that the cells refer to, decoded as text."""
    cells = [items.cell(row, name) for row in range(len(items))]
    return [None if cell is None else str(load_cell(cell, "text", roots=items.roots)) for cell in cells]


def test_keys_and_fields_are_those_of_webdataset(tmp_path: Path) -> None:
    names = ["a/x.jpg", "./y.seg.PNG", "a/x.txt", "y.png", "y.cls", "z.1.2.jpg", "d.e/f.jpg", "d.e/f.json"]
    path = write(tmp_path / "s.tar", [info(name, name.encode()) for name in names])
    items = Items.open(path)
    assert items.keys.tolist() == ["a/x", "y", "z", "d.e/f"]
    assert items.kinds == {"image": "image", "text": "text", "1.2": "image", "seg": "image"}
    assert texts(items, "image") == ["a/x.jpg", "y.png", None, "d.e/f.jpg"]
    assert texts(items, "seg") == [None, "./y.seg.PNG", None, None]
    assert texts(items, "1.2") == [None, None, "z.1.2.jpg", None]
    assert items.label_names == ("y.cls",)
    assert items.labels.tolist() == [-1, 0, -1, -1]
    cell = items.cell(0, "image")
    assert cell == Cell(path="s.tar", at=(512, 7), name="a/x.jpg")
    assert items.notes == ("no rule uses the fields json (1)",)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_positions_are_right_in_every_format_of_tar(tmp_path: Path, format: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"{'d' * 60}/{'ü' * int(length)}{i}.txt" for i, length in enumerate(rng.integers(1, 40, 20))]
    data = [str(i) * int(size) for i, size in enumerate(rng.integers(1, 2000, 20))]
    pairs = zip(names, data, strict=True)
    path = write(tmp_path / "s.tar", [info(name, text.encode()) for name, text in pairs], format=format)
    items = Items.open(path)
    assert items.keys.tolist() == [name.removesuffix(".txt") for name in names]
    assert texts(items, "text") == data


def test_members_of_a_key_may_lie_apart_and_in_other_shards(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [info("a.jpg"), info("b.jpg"), info("a.txt", b"A")])
    write(tmp_path / "9.tar", [info("c.jpg"), info("b.txt", b"B")])
    write(tmp_path / "10.tar", [info("d.jpg"), info("c.txt", b"C")])
    items = Items.open(f"{tmp_path}/*.tar")
    assert items.keys.tolist() == ["a", "b", "c", "d"]
    assert texts(items, "text") == ["A", "B", "C", None]
    assert [items.cell(row, "text").path for row in range(3)] == ["0.tar", "9.tar", "10.tar"]  # type: ignore[union-attr]
    one = Items.open([f"{tmp_path}/{{0..0}}.tar", f"{tmp_path}/{{9..10}}.tar"])
    assert one.fingerprint == items.fingerprint
    (tmp_path / "other").mkdir()
    (tmp_path / "10.tar").rename(tmp_path / "other" / "10.tar")
    items = Items.open([tmp_path / "0.tar", tmp_path / "9.tar", tmp_path / "other" / "10.tar"])
    assert texts(items, "text") == ["A", "B", "C", None]


def test_rules_name_fields_in_order_of_priority(tmp_path: Path) -> None:
    write(tmp_path / "s.tar", [info("a.png", b"1"), info("a.jpg", b"2"), info("b.jpg", b"3"), info("b.gene.npy", b"4")])
    items = Items.open(tmp_path / "s.tar", rules={"photo": ["jpg", ".PNG"], "gene": "gene.npy"})
    assert texts(items, "photo") == ["2", "3"]
    assert items.kinds == {"photo": "image", "gene": "array"}
    with pytest.raises(
        DataError, match=r"the rule 'mp3' of 'sound' matches no member; the fields are jpg \(2\), gene\.npy"
    ):
        Items.open(tmp_path / "s.tar", rules={"sound": "mp3"})
    write(tmp_path / "t.tar", [info("a.bin"), info("b.bin")])
    with pytest.raises(DataError, match=r"has no members with media; the fields are bin \(2\)"):
        Items.open(tmp_path / "t.tar")
    with pytest.raises(ConfigError, match="the fields bin of 'x' have no known kind"):
        Items.open(tmp_path / "t.tar", rules={"x": "bin"})
    assert Items.open(tmp_path / "t.tar", rules={"x": "bin"}, kinds={"x": "audio"}).kinds == {"x": "audio"}


def test_a_name_that_occurs_twice_is_named_with_both_places(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [info("a.jpg"), info("a.txt"), info("a.JPG")])
    with pytest.raises(
        DataError, match=r"'a\.JPG' occurs twice: at byte 512 of .*0\.tar and at byte 2,560 of .*0\.tar"
    ):
        Items.open(tmp_path / "0.tar")
    write(tmp_path / "0.tar", [info("a.jpg")])
    write(tmp_path / "1.tar", [info("b.jpg"), info("a.jpg")])
    with pytest.raises(DataError, match=r"at byte 512 of .*0\.tar and at byte 1,536 of .*1\.tar"):
        Items.open(f"{tmp_path}/?.tar")


def test_members_that_could_harm_are_listed_and_left_out(tmp_path: Path) -> None:
    hostile = [
        info("../up.jpg"),
        info("a/../../up.jpg"),
        info("/etc/x.jpg"),
        info("link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        info("hard.jpg", b"", type=tarfile.LNKTYPE, linkname="good.jpg"),
        info("pipe.jpg", b"", type=tarfile.FIFOTYPE),
        info("dev.jpg", b"", type=tarfile.CHRTYPE),
        info("._good.jpg"),
        info("new\nline.jpg"),
        info("README"),
        info("dir", b"", type=tarfile.DIRTYPE),
    ]
    items = Items.open(write(tmp_path / "s.tar", [*hostile, info("good.jpg")]))
    assert items.keys.tolist() == ["good"]
    notes = "\n".join(items.notes)
    for expected in (
        "3 members left out (their paths lead out of the archive): '../up.jpg', 'a/../../up.jpg', '/etc/x.jpg'",
        "2 members left out (links are not followed): 'link.jpg', 'hard.jpg'",
        "2 members left out (special or sparse files are not read): 'pipe.jpg', 'dev.jpg'",
        "1 member left out (hidden files): '._good.jpg'",
        "1 member left out (names are not UTF-8, have control characters or are too long): 'new\\nline.jpg'",
        "1 member left out (names without a dot have no field): 'README'",
    ):
        assert expected in notes
    assert len(items.notes) == 6


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:size]


@pytest.mark.parametrize(
    ("damage", "rest", "words"),
    [
        (cut(1024), 1, r"after 'a\.jpg' \(the block of zeros at the end is missing\)"),
        (cut(1024 + 100), 1, "bytes after its end"),
        (cut(1024 + 512), 1, r"after 'a\.jpg' \(unexpected end of data\)"),
        (cut(1024 + 512 + 700), 1, "unexpected end of data"),
        (lambda data: data[:1024] + b"\xff" * 512 + data[1536:], 1, "bytes after its end"),
        (lambda data: data + b"more", 3, "bytes after its end"),
    ],
)
def test_a_shard_that_is_cut_off_stops_unless_allowed(
    tmp_path: Path, damage: Callable[[bytes], bytes], rest: int, words: str
) -> None:
    path = write(tmp_path / "s.tar", [info("a.jpg"), info("b.jpg", b"y" * 1000), info("c.jpg")])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"s\.tar is damaged or truncated .*{words}.*allow_truncated=True"):
        Items.open(path)
    items = Items.open(path, allow_truncated=True)
    assert items.keys.tolist() == ["a", "b", "c"][:rest]
    assert "the members before are used" in items.notes[0]


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """Return the header of a member with any size field."""
    block = bytearray(info(name)[0].tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        header("b.jpg", b"\xff" * 12) + bytes(1024),  # a negative size, which would lead back to the start
        header("b.jpg", b"\x80" + b"\xff" * 11) + bytes(1024),  # more bytes than any file has
        header("b", b"%011o\0" % (1 << 31), b"x") + bytes(1024),  # an extended header of 2 GB
        header("b", b"%011o\0" % 14, b"x")
        + b"14 size=-1024\n".ljust(512, b"\0")
        + header("b.jpg", b"%011o\0" % 1)
        + bytes(1024),
    ],
)
def test_sizes_that_make_no_sense_are_errors(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "s.tar", [info("a.jpg")])
    path.write_bytes(path.read_bytes()[:1024] + data)
    with pytest.raises(DataError, match=r"s\.tar is damaged or truncated after 'a\.jpg'"):
        Items.open(path)
    assert Items.open(path, allow_truncated=True).keys.tolist() == ["a"]


def test_a_shard_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.tar", [info("a.jpg"), info("b.jpg")])
    step = tarfile.TarFile.next

    def changing(self: tarfile.TarFile) -> tarfile.TarInfo | None:
        with path.open("ab") as file:
            file.write(bytes(512))
        return step(self)

    monkeypatch.setattr(tarfile.TarFile, "next", changing)
    with pytest.raises(DataError, match=r"s\.tar changed while it was read"):
        Items.open(path)


def test_archives_of_media_are_no_embeddings(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", [info("a.jpg")])
    with pytest.raises(DataError, match=r"s\.tar is a tar archive; .*unialign inspect s\.tar"):
        load_dataset(path)
    path.rename(tmp_path / "s.tar.gz")
    (tmp_path / "s.tar.gz").write_bytes(b"\x1f\x8b\x08\0")
    with pytest.raises(DataError, match="compressed by gzip; decompress it first: gunzip"):
        Items.open(tmp_path / "s.tar.gz")
