"""Test that all file formats give the same diagnosis; `tests/readers` tests damaged and invalid files."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from spaces import DIM, ITEMS, healthy

import unialign as ua
from small_files import KINDS, write_files
from unialign.diagnostics import diagnose
from unialign.readers import _rows

SPACE = healthy(("image", "text"))


def checked(sources, **options):
    return diagnose(sources, resamples=100, **{"sample": 100} | options)


@pytest.fixture(scope="module")
def reference():
    return checked(SPACE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_numbers(tmp_path, monkeypatch, reference, kind):
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 7 * DIM * 4)
    diagnosis = checked(write_files(SPACE, tmp_path, kind))
    assert diagnosis.numbers == reference.numbers
    assert diagnosis.fingerprint == reference.fingerprint
    assert diagnosis.findings == reference.findings


def test_tensors_and_stores_in_memory_are_sources(reference):
    tensors = {name: torch.from_numpy(z) for name, z in SPACE.items()}
    assert checked(tensors).numbers == reference.numbers
    assert checked(ua.data.EmbeddingStore.from_arrays(SPACE)).numbers == reference.numbers
    assert checked([{"image": SPACE["image"]}, {"text": SPACE["text"]}]).numbers == reference.numbers


def test_the_input_is_not_changed():
    space = {name: z.copy() for name, z in SPACE.items()}
    space["text"][3] = np.nan
    space["image"][:, 0] = -0.0
    before = {name: z.copy() for name, z in space.items()}
    checked(space)
    for name, z in space.items():
        np.testing.assert_array_equal(z.view(np.uint32), before[name].view(np.uint32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_exactly(tmp_path, dtype):
    from safetensors.torch import save_file as save

    tensors = {name: torch.from_numpy(z).to(dtype) for name, z in SPACE.items()}
    save(tensors, tmp_path / "x.safetensors")
    found, wide = checked(tmp_path / "x.safetensors"), checked({name: z.float() for name, z in tensors.items()})
    if dtype != torch.float64:
        assert found.fingerprint == wide.fingerprint
    assert found.summary["recall@1"] == pytest.approx(wide.summary["recall@1"])
    assert checked(tensors).fingerprint == found.fingerprint


def test_ids_labels_and_masks_are_recognized_by_their_keys(tmp_path):
    ids = np.arange(ITEMS) // 2
    present = np.arange(ITEMS) % 4 > 0
    extras = {"ids": ids, "labels": ids % 3, "present.text": present}
    save_file(SPACE | extras, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **SPACE, ids=[f"item {i}" for i in ids], labels=ids % 3, **{"present/text": present})
    first, second = checked(tmp_path / "a.safetensors"), checked(tmp_path / "b.npz")
    assert first.numbers == second.numbers
    assert first.details["ids"]
    assert first.numbers["modalities"]["text"]["absent"] == ITEMS // 4
    assert "label_map" in first.numbers


def test_a_shipped_set_is_a_source():
    assert list(checked("digits", modalities=["kar", "fou"]).numbers["modalities"]) == ["kar", "fou"]


def test_files_in_another_order_are_matched_by_their_ids(tmp_path):
    order = np.random.default_rng(0).permutation(ITEMS)
    present = np.arange(ITEMS) % 5 > 0
    text = SPACE["text"].copy()
    text[7], text[12] = text[3], np.nan
    ids = np.array([f"item {i}" for i in range(ITEMS)])
    np.savez(tmp_path / "a.npz", image=SPACE["image"], ids=ids, labels=np.arange(ITEMS) % 3)
    second = {"text": text[order], "ids": ids[order], "labels": order % 3, "present.text": present[order]}
    np.savez(tmp_path / "b.npz", **second)
    found = checked([tmp_path / "a.npz", tmp_path / "b.npz"], sample=200)
    plain = checked({"image": SPACE["image"], "text": text, "labels": np.arange(ITEMS) % 3, "present.text": present},
                    sample=200)  # fmt: skip
    numbers, expected = found.numbers, plain.numbers
    for modality in (*numbers["modalities"].values(), *expected["modalities"].values()):
        del modality["fingerprint"]  # This number depends on the order of the rows.
    assert numbers == expected
    assert "b.npz" in found.findings_with("matched")[0].text
    np.savez(tmp_path / "c.npz", **{key: value[::-1] for key, value in second.items()})
    assert checked([tmp_path / "b.npz", tmp_path / "c.npz"]).findings_with("duplicate_modality")


def test_a_mask_without_a_modality_is_reported(tmp_path):
    """Regression test: a mask with a misspelled name was ignored without a warning."""
    mask = np.arange(ITEMS) > 3
    np.savez(tmp_path / "a.npz", **SPACE, **{"present.imgae": mask, "present.text": mask})
    (finding,) = checked(tmp_path / "a.npz").findings_with("ignored")
    assert "present.imgae (no array with that name)" in finding.text
    assert "present.text" not in finding.text


def test_items_that_a_file_lacks_are_reported(tmp_path):
    ids = np.arange(ITEMS) + 1000
    np.savez(tmp_path / "a.npz", image=SPACE["image"], ids=ids)
    np.savez(tmp_path / "b.npz", text=SPACE["text"][10:], ids=ids[10:])
    (finding,) = checked([tmp_path / "a.npz", tmp_path / "b.npz"]).findings_with("sources")
    assert finding.severity == "note"
    assert "b.npz" in finding.text
    np.savez(tmp_path / "b.npz", text=SPACE["text"], ids=ids)
    assert not checked([tmp_path / "a.npz", tmp_path / "b.npz"]).findings_with("sources")
