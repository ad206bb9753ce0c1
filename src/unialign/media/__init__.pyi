from unialign.media._arrow_sizes import compressed_batches as compressed_batches
from unialign.media._as_media import as_media as as_media
from unialign.media._cell import Cell as Cell
from unialign.media._codes import CODES as CODES, TRANSIENT as TRANSIENT
from unialign.media._decode import decode as decode
from unialign.media._decoding import VERSIONS as VERSIONS, Decoding as Decoding
from unialign.media._files import FileMark as FileMark
from unialign.media._frame_choice import chosen_frames as chosen_frames
from unialign.media._kinds import KINDS as KINDS, Audio as Audio, Kind as Kind, Media as Media, Video as Video
from unialign.media._limits import MediaLimits as MediaLimits
from unialign.media._load import (
    file_cells as file_cells,
    file_mark as file_mark,
    load_cell as load_cell,
    open_cell as open_cell,
)
from unialign.media._open_files import OpenFiles as OpenFiles
from unialign.media._retry import RETRY_SECONDS as RETRY_SECONDS, with_retries as with_retries

__all__ = [
    "CODES",
    "KINDS",
    "TRANSIENT",
    "VERSIONS",
    "Audio",
    "Cell",
    "Decoding",
    "FileMark",
    "Kind",
    "Media",
    "MediaLimits",
    "OpenFiles",
    "Video",
    "as_media",
    "decode",
    "file_cells",
    "file_mark",
    "load_cell",
    "open_cell",
]
