from unialign.io._atomic import atomic_directory as atomic_directory, commit_files as commit_files
from unialign.io._card import marked as marked
from unialign.io._checksummed import read_tensors as read_tensors, write_tensors as write_tensors
from unialign.io._environment import (
    describe_environment as describe_environment,
    training_environment as training_environment,
)
from unialign.io._files import (
    checked_path as checked_path,
    digest as digest,
    discard_leftovers as discard_leftovers,
    is_leftover as is_leftover,
    open_regular as open_regular,
    reject_links_out as reject_links_out,
    replace_file as replace_file,
    sync_folder as sync_folder,
    temporary_sibling as temporary_sibling,
    write_durably as write_durably,
    write_yaml as write_yaml,
)
from unialign.io._hub import is_hub_id as is_hub_id, local_folder as local_folder, push_folder as push_folder
from unialign.io._json import (
    add_checksum as add_checksum,
    canonical_json as canonical_json,
    finite as finite,
    is_unchanged as is_unchanged,
)
from unialign.io._json_files import (
    read_json as read_json,
    reject_pickles as reject_pickles,
    write_json as write_json,
)
from unialign.io._lock import (
    LOCK_FILE as LOCK_FILE,
    lock_folder as lock_folder,
    wait_for_folder as wait_for_folder,
)
from unialign.io._mapped_pages import MappedPages as MappedPages
from unialign.io._npy import (
    CHUNK_BYTES as CHUNK_BYTES,
    NpyAppender as NpyAppender,
    NpyHeader as NpyHeader,
    file_chunks as file_chunks,
    npy_chunks as npy_chunks,
    read_npy_header as read_npy_header,
)
from unialign.io._pretrained import (
    BRIDGE_FILES as BRIDGE_FILES,
    CARD as CARD,
    STAGING as STAGING,
    check_json_object as check_json_object,
    is_interrupted as is_interrupted,
    load_folder as load_folder,
    save_folder as save_folder,
    staged_files as staged_files,
)

__all__ = []
