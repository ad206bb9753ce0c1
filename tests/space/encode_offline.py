"""Load a space without network, and encode raw media; run by a test in a new process.

Arguments: folder of a space, JSON file with the raw media of each modality, .npz file to write the embeddings to; the
same for further spaces.
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any


def blocked(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("the network was used")


def main(arguments: list[str]) -> None:
    class Socket(socket.socket):
        connect = connect_ex = sendto = blocked

    socket.socket = Socket  # type: ignore[misc]
    socket.create_connection = socket.getaddrinfo = blocked
    import numpy as np

    from unialign.space import Space

    for space_folder, raw_file, out in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        space = Space.from_pretrained(space_folder)
        embeddings = space.encode(json.loads(Path(raw_file).read_text()))
        np.savez(out, **{name: z.numpy() for name, z in embeddings.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
