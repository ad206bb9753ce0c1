"""Write the lines of `items.jsonl`: one JSON object per item, in UTF-8 with sorted keys."""

from collections.abc import Iterator
from json.encoder import encode_basestring

from unialign.items._cell_text import json_of
from unialign.items._columns import SPLITS, Columns

__all__ = ["lines_of"]

_CHUNK = 1 << 13
_quote = encode_basestring


def lines_of(columns: Columns) -> Iterator[bytes]:
    names = sorted(columns.cells)
    for start in range(0, len(columns), _CHUNK):
        part = slice(start, start + _CHUNK)
        keys = columns.keys[part].tolist()
        labelled = [(f"{_quote(name)}:", columns.cells[name][part].tolist()) for name in names]
        values = {name: texts_N[part].tolist() for name, texts_N in columns.values.items()}
        splits = None if columns.split is None else columns.split[part].tolist()
        lines = []
        for i, key in enumerate(keys):
            given = ",".join([label + json_of(texts[i]) for label, texts in labelled if texts[i]])
            line = f'{{"cells":{{{given}}}'
            if "group" in values and values["group"][i]:
                line += f',"group":{_quote(values["group"][i])}'
            line += f',"id":{_quote(key)}'
            for name in ("ids", "label"):
                if name in values and values[name][i]:
                    line += f',"{name}":{_quote(values[name][i])}'
            if splits is not None and splits[i] >= 0:
                line += f',"split":"{SPLITS[splits[i]]}"'
            lines.append(line + "}\n")
        yield "".join(lines).encode()
