"""Named data sets are listed from small folders of the layout of their packages, and from the packages if installed."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from unialign import named_data
from unialign.errors import ConfigError, DataError

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def sound(path: Path, level: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.full(80, level, np.int16).tobytes())


def titled(title: str) -> bytes:
    chunk = b"Title\0" + title.encode("latin-1")
    return PNG[:33] + len(chunk).to_bytes(4) + b"tEXt" + chunk + b"\0\0\0\0" + PNG[33:]


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    write(
        tmp_path,
        {
            "animals/cat.png": PNG + b"1",
            "animals/cat.txt": "A cat.\nfr.utf8=Un chat.\n",
            "animals/cat_desc_fr.ogg": b"chat",
            "animals/cat_desc.ogg": b"cat",
            "animals/cat.ogg": b"meow",
            "animals/tomcat.png": PNG + b"2",
            "animals/tomcat.txt": "a CAT",
            "symbols/7.png": PNG + b"3",
            "symbols/7_en_GB.ogg": b"seven",
            "symbols/7_fr.ogg": b"sept",
            "symbols/7.dat": "4",
            "food/bread.svg": "<svg/>",
            "food/bread.txt": "\nfr.utf8=Du pain.",
            "food/roll.txt": "A roll.",
            "food/roll_desc_fr.ogg": b"chat",
        },
    )
    return tmp_path


def test_the_cells_of_a_stamp_have_one_stem(stamps: Path) -> None:
    items = named_data.prepare("tuxpaint", source=stamps)
    assert items.keys.tolist() == ["animals/cat", "animals/tomcat", "food/roll", "symbols/7"]
    assert items.modalities == ("image", "text", "speech_fr", "speech_en", "sound")
    assert {name: items.present(name).tolist() for name in items.modalities} == {
        "image": [True, True, False, True],
        "text": [True, True, True, False],
        "speech_fr": [True, False, True, False],
        "speech_en": [True, False, False, True],
        "sound": [True, False, False, False],
    }
    text, sound_cell = items.cell(0, "text"), items.cell(0, "sound")
    assert text is not None
    assert text.value == "A cat."
    assert sound_cell is not None
    assert sound_cell.path == "animals/cat.ogg"
    assert [items.label_names[code] for code in items.labels] == ["animals", "animals", "food", "symbols"]


def test_equal_captions_and_equal_recordings_share_a_group_and_a_split(stamps: Path) -> None:
    items = named_data.prepare("tuxpaint", source=stamps)
    # The cat and the tomcat have one caption; the cat and the roll have one recording.
    assert len(set(items.groups[:3].tolist())) == 1
    assert items.groups[3] != items.groups[0]
    assert len(set(items.split[:3].tolist())) == 1
    # Only equal captions make two stamps the same thing.
    assert items.ids.tolist() == [0, 0, 1, 2]


def test_cards_are_joined_by_their_word(tmp_path: Path) -> None:
    write(
        tmp_path / "abcs",
        {
            "en/abc1.properties": "#a\nanimals:a=sea bird==gull=waves\nfood:a=apple==apple\ntoys:a=apple==apple=bite\n",
            "all/pics/animals/gull.png": PNG,
            "all/pics/food/apple.png": PNG + b"2",
            "all/noises/bite.ogg": b"bite",
            "en/sounds/words/sea_bird.ogg": b"sea bird",
        },
    )
    items = named_data.prepare("qabcs", source=tmp_path)
    assert items.keys.tolist() == ["sea bird", "apple"]
    assert {name: items.present(name).tolist() for name in items.modalities} == {
        "image": [True, True],
        "text": [True, True],
        "speech_en": [True, False],
        "sound": [False, True],
    }


def test_dialogues_are_joined_by_their_name_and_grouped_by_level(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "script/reef/dialogs_en.lua": 'dialogId("r-one", "f", "Say \\"hello\\".")\ndialogId("r-two", "f", "Two.")',
            "script/reef/dialogs_cs.lua": 'dialogId("r-one", "font_big", "Say.")\ndialogStr("Řekni ahoj.")\n',
            "script/cave/dialogs_en.lua": 'dialogId("c-one", "f", "Dark.")',
            "sound/reef/cs/r-one.ogg": b"ahoj",
        },
    )
    items = named_data.prepare("fillets", source=tmp_path)
    assert items.keys.tolist() == ["cave/c-one", "reef/r-one", "reef/r-two"]
    english, czech = items.cell(1, "text"), items.cell(1, "text_cs")
    assert english is not None
    assert english.value == 'Say "hello".'
    assert czech is not None
    assert czech.value == "Řekni ahoj."
    assert items.present("speech_cs").tolist() == [False, True, False]
    assert items.groups[1] == items.groups[2] != items.groups[0]


def test_drawings_have_the_title_of_their_file(tmp_path: Path) -> None:
    files = {f"png/icons/{number}.png": titled("Icons") for number in range(9)}
    write(tmp_path, {**files, "png/food/egg.png": titled("Egg &amp; bacon"), "png/food/none.png": PNG})
    items = named_data.prepare("openclipart", source=tmp_path)
    text = items.cell(0, "text")
    assert items.keys.tolist() == ["food/egg"]
    assert text is not None
    assert text.value == "Egg & bacon"


def test_missing_data_name_the_command_that_installs_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install --no-install-recommends qabcs-data"):
        named_data.prepare("qabcs", source=tmp_path / "absent")
    with pytest.raises(DataError, match="has no items of openclipart"):
        named_data.prepare("openclipart", source=tmp_path)
    with pytest.raises(ConfigError, match="tuxpaint"):
        named_data.prepare("tuxpain")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in named_data.names() if named_data.find(name).install])
def test_an_installed_package_has_the_known_counts(name: str) -> None:
    data = named_data.find(name)
    if not data.installed:
        pytest.skip(f"{name} is not installed: {data.install}")
    items = named_data.prepare(name)
    assert data.differences(items) == []
    crossing = {(group, split) for group, split in zip(items.groups.tolist(), items.split.tolist(), strict=True)}
    assert len(crossing) == len({group for group, _ in crossing})


def test_the_sets_of_papers_keep_their_split_and_warn_about_other_counts(tmp_path: Path) -> None:
    clips = [{"video_id": f"v{i}", "desc": f"caption {i}"} for i in range(3)]
    write(
        tmp_path,
        {
            "descs_ret_train.json": json.dumps(clips[:2]),
            "descs_ret_test.json": json.dumps([{**clips[2], "desc": ["a", "b"]}]),
            "vision/v0.mp4": b"x",
            "vision/v1x.mp4": b"x",
        },
    )
    data = named_data.find("gram:didemo")
    items = named_data.prepare("gram:didemo", source=tmp_path)
    assert items.name == "gram:didemo"
    assert items.keys.tolist() == ["v0", "v1", "v2", "v2#2"]
    assert items.split.tolist() == [0, 0, 2, 2]
    assert items.present("video").tolist() == [True, False, False, False]
    counted = data.counted(items)
    assert (counted["clips"], counted["clips (train)"], counted["clips (test)"], counted["captions (test)"]) == (
        3,
        2,
        1,
        2,
    )
    assert data.differences(items) == [
        "clips (train): 2, 8,363 in version annotations of VAST and GRAM",
        "clips (test): 1, 1,003 in version annotations of VAST and GRAM",
    ]
    with pytest.raises(DataError, match=r"vision/ and audio/ as source \(--source\)"):
        named_data.prepare("gram:vatex")
    with pytest.raises(ConfigError, match="did you mean 'gram:vatex'"):
        named_data.find("gram:vatexx")


def test_vggsound_is_prepared_from_its_table(tmp_path: Path) -> None:
    write(tmp_path, {"vggsound.csv": 'a,1,"dog, barking",train\nb,20,cat,test\n', "video/b_000020.mp4": b"x"})
    items = named_data.prepare("vggsound", source=tmp_path)
    assert items.keys.tolist() == ["a_000001", "b_000020"]
    assert items.split.tolist() == [0, 2]
    assert items.present("audio").tolist() == [False, True]
