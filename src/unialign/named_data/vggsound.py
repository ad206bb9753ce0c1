"""VGGSound: videos of ten seconds with a label, in a folder of the user."""

from pathlib import Path

from unialign.items import Items
from unialign.named_data._named_data import NamedData


def read(folder: Path) -> Items:
    """List the lines of `vggsound.csv`; see the reader `vggsound`."""
    return Items.open(folder, reader="vggsound", name="vggsound", allow_absolute=True)


DATA = NamedData(
    name="vggsound",
    title="clips of ten seconds: video, sound of the video, label as text",
    license="CC-BY-4.0",
    install="",
    folder=Path("vggsound"),
    version="vggsound.csv",
    counts={},
    equal_texts=(),
    equal_files=(),
    read=read,
    keeps_split=True,
    layout="vggsound.csv and clips ID_START.mp4",
)
