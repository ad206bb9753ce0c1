from unialign.io._atomic import atomic_directory as atomic_directory, commit_files as commit_files, exchange as exchange
from unialign.io._checksummed import (
    read_json as read_json,
    read_tensors as read_tensors,
    refuse_pickles as refuse_pickles,
    write_json as write_json,
    write_tensors as write_tensors,
)
from unialign.io._chunks import CHUNK_BYTES as CHUNK_BYTES, file_pieces as file_pieces, npy_pieces as npy_pieces
from unialign.io._environment import (
    describe_environment as describe_environment,
    training_environment as training_environment,
)
from unialign.io._files import (
    checked_path as checked_path,
    digest as digest,
    open_regular as open_regular,
    replace_file as replace_file,
    sync_folder as sync_folder,
    write_durably as write_durably,
    write_yaml as write_yaml,
)
from unialign.io._hub import is_hub_id as is_hub_id, local_folder as local_folder, push_folder as push_folder
from unialign.io._json import (
    SEAL as SEAL,
    canonical_json as canonical_json,
    finite as finite,
    is_sealed as is_sealed,
    seal_of as seal_of,
)
from unialign.io._lock import LOCK_FILE as LOCK_FILE, lock_folder as lock_folder
from unialign.io._pretrained import json_object as json_object, load_folder as load_folder, save_folder as save_folder

__all__ = []
