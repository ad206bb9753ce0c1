"""Recognize unsupported file formats by their content, and suggest a command that converts the file."""

import zipfile
from pathlib import Path

from unialign.io import open_regular

__all__ = ["foreign_archive", "foreign_folder", "foreign_format"]

_NEVER = "a pickle, which can run code and is never read"
_PICKLE = (
    f"{_NEVER}; if you trust it, convert it: numpy.save('vectors.npy', numpy.asarray(pickle.load(open(FILE, 'rb'))))"
)
_TORCH = f"{_NEVER}; save the tensors with safetensors.torch.save_file({{'image': x}}, 'vectors.safetensors')"
_RAW = "decompress it first: "
# First bytes -> format of the file and advice; FILE is replaced by the file name.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", f"compressed by gzip; {_RAW}gunzip -k FILE"),
    (b"\x28\xb5\x2f\xfd", f"compressed by zstd; {_RAW}zstd -d FILE"),
    (b"\xfd7zXZ", f"compressed by xz; {_RAW}unxz -k FILE"),
    (b"\x78\x9c", f"compressed by zlib, like joblib files, and probably {_NEVER}; save the arrays with numpy.savez"),
    (b"\x78\x01", f"compressed by zlib, like joblib files, and probably {_NEVER}; save the arrays with numpy.savez"),
    (b"BZh", f"compressed by bzip2; {_RAW}bunzip2 -k FILE"),
    (b"7z\xbc\xaf", f"a 7z archive; {_RAW}7z x FILE"),
    (b"MATLAB 5.0", "a MATLAB file; convert it: d = scipy.io.loadmat(FILE); numpy.save('x.npy', d['x'])"),
    (b"SQLite format 3", "an SQLite database; export a table: sqlite3 -header -csv FILE 'select * from NAME' > x.csv"),
    (b"FEA1", "a Feather version 1 file; convert it: pandas.read_feather(FILE).to_parquet('x.parquet')"),
    (b"ORC", "an ORC file; convert it: pyarrow.parquet.write_table(pyarrow.orc.read_table(FILE), 'x.parquet')"),
    (b"Obj\x01", "Avro data; convert it: pandas.DataFrame(fastavro.reader(open(FILE, 'rb'))).to_parquet('x.parquet')"),
    (b"GGUF", "a GGUF file of model weights; embed your items with the model and save the vectors"),
    (b"usearch", "a usearch index; convert it: i = Index.restore(FILE); numpy.save('x.npy', i.get(i.keys))"),
    (b"version https://git-lfs", "a Git LFS pointer without the data; fetch the data: git lfs pull"),
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"),
    (b"RIFF", "an audio, video or WebP file"), (b"OggS", "an Ogg audio file"), (b"fLaC", "a FLAC audio file"),
    (b"ID3", "an MP3 audio file"), (b"%PDF", "a PDF document"),
)  # fmt: skip
_MEDIA = "; embed it with an encoder and save the vectors"


def foreign_format(path: Path, head: bytes) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _filled(_PICKLE, path)
    with open_regular(path) as file:
        start = file.read(4096)
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return _filled(what if ";" in what else what + _MEDIA, path)
    if start[257:262] == b"ustar":
        return _filled(f"a tar archive; {_RAW}tar -xf FILE; or list the media in it: unialign inspect FILE", path)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page or XML file, perhaps from a failed download; download the file again"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _filled("UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8 FILE > utf8.csv", path)
    if text[:1] in (b"[", b"{"):
        return _filled(_json_advice(text), path)
    if text[:1] in b"(c]ld" and _is_old_pickle(path, start):
        return _filled(_PICKLE, path)
    if _is_binary_word2vec(start):
        return _filled(
            "a binary word2vec file; convert it: gensim.models.KeyedVectors.load_word2vec_format(FILE, "
            "binary=True).save_word2vec_format('x.vec')",
            path,
        )
    return None


def foreign_folder(path: Path) -> str | None:
    names = {entry.name for entry in path.iterdir()}
    if names & {".zgroup", ".zarray", "zarr.json"}:
        return _filled("a Zarr array or group; convert it: numpy.save('x.npy', zarr.open(FILE)['x'][:])", path)
    if {"items.json", "items.jsonl"} <= names:
        return "an item table, which has no embeddings; encode its media with: unialign embed"
    if "chroma.sqlite3" in names:
        return (
            "a Chroma database; convert it: c = client.get_collection(NAME).get(include=['embeddings']); "
            "numpy.savez('x.npz', x=c['embeddings'], ids=c['ids'])"
        )
    if names & {"_versions", "_latest.manifest"}:
        return _filled(
            "a Lance dataset; convert it: pyarrow.parquet.write_table(lance.dataset(FILE).to_table(), 'x.parquet')",
            path,
        )
    return None


def foreign_archive(path: Path, archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    if any(name.endswith(("data.pkl", ".pickle", ".pkl")) for name in names):
        return f"a `torch.save` archive, {_TORCH}"
    if any(name.endswith(".npy") for name in names) or not names:
        return None
    if "[Content_Types].xml" in names:
        return _filled(
            "an Excel or Office file; convert it: pandas.read_excel(FILE).to_csv('x.csv', index=False)", path
        )
    if any(name.endswith((".keras", "model.weights.h5")) for name in names):
        return "a Keras model; embed your items with it and save the vectors"
    return _filled(f"a zip archive without arrays; {_RAW}unzip FILE", path)


def _json_advice(text: bytes) -> str:
    inner = text[1:].lstrip()[:1]
    if text[:1] == b"{":
        return (
            "one JSON object; convert it: numpy.savez('x.npz', **{k: numpy.array(v) for k, v in "
            "json.load(open(FILE)).items()})"
        )
    if inner == b"[":
        return "one JSON list; convert it: numpy.save('x.npy', numpy.array(json.load(open(FILE))))"
    return "JSON, but not one object per line; convert it: jq -c '.[]' FILE > items.jsonl"


def _filled(what: str, path: Path) -> str:
    is_python = "(FILE" in what
    return what.replace("FILE", repr(path.name) if is_python else path.name)


def _is_old_pickle(path: Path, start: bytes) -> bool:
    """Detect protocols 0 and 1, which begin with an opcode and end with "."."""
    with open_regular(path) as file:
        file.seek(-1, 2)
        ends = file.read() == b"."
    return ends and (start[1:3] in (b"lp", b"dp") or start[:1] in b"c]" or b"\np" in start or b"q\x00" in start)


def _is_binary_word2vec(start: bytes) -> bool:
    line, newline, rest = start.partition(b"\n")
    parts = line.split(b" ")
    return bool(newline and rest) and len(parts) == 2 and all(part.isdigit() for part in parts)
