"""Test the items of annotation files of VAST, GRAM and VGGSound: ids, captions, media by exact names, and splits."""

import json
from pathlib import Path
from typing import Any

import pytest

from unialign.data import Items, load_dataset
from unialign.errors import ConfigError, DataError
from unialign.readers.gram import GramReader


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def annotate(folder: Path, **parts: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, entries in parts.items():
        (folder / f"descs_ret_{part}.json").write_text(json.dumps(entries))
    return folder


def paths(items: Items, name: str) -> list[str | None]:
    cells = [items.cell(row, name) for row in range(len(items))]
    return [None if cell is None else cell.path for cell in cells]


def texts(items: Items, name: str = "text") -> list[Any]:
    cells = [items.cell(row, name) for row in range(len(items))]
    return [None if cell is None else cell.value for cell in cells]


def test_media_are_found_by_exact_names_and_a_clip_without_sound_takes_the_sound_of_its_video(tmp_path: Path) -> None:
    entries = [
        {"video_id": "video977", "desc": "a cat", "subtitle": ""},
        {"video_id": "video9770", "desc": "a dog", "subtitle": "hello"},
        {"video_id": "video9", "desc": "a bird", "subtitle": "  "},
        {"clip_id": None, "video_id": "c", "image_id": "other", "caption": ["x", "y"], "vast_cap": "z"},
    ]
    annotate(tmp_path / "msrvtt", test=entries)
    touch(
        tmp_path / "msrvtt", "vision/video9770.mp4", "vision/video977.webm", "audio/video9770.wav", "vision/video97.mp4"
    )
    touch(tmp_path / "msrvtt", "vision/c.mkv", "vision/c.avi", "audio/c.mkv", "audio/c.flac")
    items = Items.open(tmp_path / "msrvtt")
    assert items.keys.tolist() == ["video977", "video9770", "video9", "c", "c#2"]
    assert paths(items, "video") == [
        "vision/video977.webm",
        "vision/video9770.mp4",
        None,
        "vision/c.avi",
        "vision/c.avi",
    ]
    assert paths(items, "audio") == [
        "vision/video977.webm",
        "audio/video9770.wav",
        None,
        "audio/c.flac",
        "audio/c.flac",
    ]
    assert texts(items) == ["a cat", "a dog", "a bird", "x", "y"]
    assert texts(items, "subtitle") == [None, "hello", None, None, None]
    assert items.name == "msrvtt"
    assert items.ids.tolist() == [0, 1, 2, 3, 3]
    assert items.groups.tolist() == [0, 1, 2, 3, 3]
    assert set(items.split.tolist()) == {2}


def test_captions_first_lists_every_clip_once(tmp_path: Path) -> None:
    entries = [{"clip_id": i, "caption": [f"{i}a", " ", f"{i}b"]} for i in range(3)] + [{"clip_id": 7, "caption": []}]
    annotate(tmp_path, test=entries)
    touch(tmp_path, "vision/0.mp4")
    first = Items.open(tmp_path, reader=GramReader(captions="first"))
    assert first.keys.tolist() == ["0", "1", "2", "7"]
    assert texts(first) == ["0a", "1a", "2a", None]
    every = Items.open(tmp_path)
    assert texts(every) == ["0a", "0b", "1a", "1b", "2a", "2b", None]
    assert any("1 clip without a caption" in note for note in every.notes)


def test_entries_with_one_id_are_captions_of_one_clip_and_splits_are_those_of_the_files(tmp_path: Path) -> None:
    train = [{"video_id": "a", "desc": "a1"}, {"video_id": "a", "desc": "a2"}, {"video_id": "t", "desc": "old"}]
    trainval = [{"video_id": "a", "desc": "a1"}, {"video_id": "a", "desc": "a2"}, {"video_id": "b", "desc": "b1"}]
    annotate(tmp_path, train=train, trainval=trainval, test=[{"video_id": "t", "desc": "new"}])
    items = Items.open(tmp_path)
    assert list(zip(items.keys.tolist(), texts(items), items.split.tolist(), strict=True)) == [
        ("a", "a1", 0),
        ("a#2", "a2", 0),
        ("t", "new", 2),
        ("b", "b1", 1),
    ]
    assert any("1 clip of descs_ret_test.json also in another file" in note for note in items.notes)
    (tmp_path / "descs_ret_train.json").unlink()
    assert Items.open(tmp_path).split.tolist() == [0, 0, 0, 2]
    assert Items.open(tmp_path / "descs_ret_test.json").keys.tolist() == ["t"]


def test_optional_texts_and_the_list_of_corrupted_clips(tmp_path: Path) -> None:
    entry = {"clip_id": "k", "vast_cap": "all", "vision_cap": ["v1", "v2"], "audio_cap": "s", "audio_caption": None}
    annotate(tmp_path, test=[entry, {"clip_id": "l", "desc": "d"}])
    (tmp_path / "corrupted").write_text("l\nunknown\n")
    items = Items.open(tmp_path)
    assert items.modalities == ("text", "vision_cap", "audio_cap")
    assert [texts(items, name)[0] for name in items.modalities] == ["all", "v1", "s"]
    assert len(items) == 2
    assert any("corrupted lists 1 clip" in note for note in items.notes)
    assert any("1 clip with several texts in 'vision_cap'" in note for note in items.notes)


def test_rules_name_other_folders_and_a_link_out_of_the_root_needs_permission(tmp_path: Path) -> None:
    annotate(tmp_path / "set", test=[{"id": "q", "text": "hello"}])
    touch(tmp_path, "set/videos/q.mp4", "elsewhere/q.wav")
    items = Items.open(tmp_path / "set", rules={"video": "videos/", "text": "text"})
    assert (paths(items, "video"), texts(items)) == (["videos/q.mp4"], ["hello"])
    (tmp_path / "set" / "audio").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="allow_absolute"):
        Items.open(tmp_path / "set")
    linked = Items.open(tmp_path / "set", allow_absolute=True).cell(0, "audio")
    assert linked is not None
    assert (linked.path, linked.root) == ("q.wav", 1)
    with pytest.raises(ConfigError, match="no rule for 'depth'"):
        Items.open(tmp_path / "set", rules={"depth": "d/"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\n", "is not JSON"),
        ("{}", "list of objects"),
        ("[]", "list of objects"),
        ('["a"]', "entry 0: expected an object"),
        ('[{"desc": "x"}]', "expected an id in one of clip_id"),
        ('[{"id": "a", "desc": 3}]', "'desc' must be a string or a list of strings"),
    ],
)
def test_damaged_annotations_name_the_file_and_the_entry(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "descs_ret_test.json").write_text(content)
    with pytest.raises(DataError, match=message):
        Items.open(tmp_path)


def test_the_lines_of_vggsound_are_items_with_and_without_a_clip(tmp_path: Path) -> None:
    lines = ['---g-f_I2yQ,1,"people marching",test', '--0PQM4-hqg,30,"waterfall, burbling",train', "x,7,dog,test"]
    (tmp_path / "vggsound.csv").write_text("\n".join(lines) + "\n")
    touch(tmp_path, "video/---g-f_I2yQ_000001.mp4", "x_000007.mp4", "video/x_0000071.mp4")
    items = Items.open(tmp_path)
    assert items.keys.tolist() == ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "x_000007"]
    assert paths(items, "video") == ["video/---g-f_I2yQ_000001.mp4", None, "x_000007.mp4"]
    assert paths(items, "audio") == paths(items, "video")
    assert texts(items) == ["people marching", "waterfall, burbling", "dog"]
    assert items.split.tolist() == [2, 0, 2]
    assert [items.label_names[code] for code in items.labels] == texts(items)
    assert items.license == "CC-BY-4.0"
    assert items.notes == ("1 line without a clip ID_START.mp4",)
    named = tmp_path / "other.csv"
    named.write_text("id,start,label,split\n" + "\n".join(lines))
    assert Items.open(named, reader="vggsound").keys.tolist() == items.keys.tolist()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,1,dog", "got 3 cells"),
        ("a,x,dog,test", "whole number of seconds"),
        (f"a,{'1' * 5000},dog,test", "whole number of seconds"),
        ("a,1,dog,tset", "split must be"),
        ("a,1,,test", "must not be empty"),
    ],
)
def test_damaged_lines_of_vggsound_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "vggsound.csv").write_text("a,0,dog,test\n" + line)
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        Items.open(tmp_path)


def test_a_folder_of_annotations_is_no_store_and_the_message_names_the_commands(tmp_path: Path) -> None:
    annotate(tmp_path, test=[{"id": "a", "desc": "x"}])
    touch(tmp_path, "vision/a.mp4")
    with pytest.raises(DataError, match=r"in the layout of gram.* unialign train .* --reader gram"):
        load_dataset(str(tmp_path))
