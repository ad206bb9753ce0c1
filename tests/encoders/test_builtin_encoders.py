"""Test the features of the built-in encoders."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from unialign.encoders import create, encode_media
from unialign.encoders._pixels import SquarePixels
from unialign.encoders._seeded import seeded_signs, seeded_uniform
from unialign.encoders._state import state_digest
from unialign.encoders._waveform import MelBands, Spectrogram
from unialign.media import Audio, Video

# The weights are the same on every machine.
FIRST = [-0.8287017345428467, -0.5263789892196655, 0.6025488376617432]
DIGESTS = {"conv": "d2a21c132834", "logmel-conv": "d9e9c2774ccf", "bag": "a96c49dc64db"}


def tone(hertz: float, seconds: float = 1.0, rate: int = 16000) -> Audio:
    time = np.arange(int(seconds * rate)) / rate
    return Audio((0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), rate)


def disk(color: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 255, np.uint8)
    image[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2] = color
    return image


def test_seeded_numbers_are_fixed():
    numbers = seeded_uniform((1000,), seed=3)
    assert numbers.dtype == np.float32
    assert numbers[:3].tolist() == FIRST
    assert abs(float(numbers.mean())) < 0.05
    assert abs(float(numbers.var()) - 1 / 3) < 0.02
    assert set(seeded_signs((50,), seed=1).tolist()) == {-1.0, 1.0}
    digests = {name: state_digest(create(f"builtin:{name}").module) for name in ("conv", "logmel-conv", "bag")}
    assert {name: digest[:12] for name, digest in digests.items()} == DIGESTS


def test_similar_texts_have_similar_features():
    encoder = create("builtin:chars")
    texts = ["A red cat.", "  a RED   cat. ", "the red cats", "stock market report", "ＣＡＴ", "cat", "é", "x" * 50_000]
    features = encode_media(encoder, texts)
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[4], features[5])
    near, far = (float(cosine_similarity(features[0], features[row], dim=0)) for row in (2, 3))
    assert near > 0.4 > 0.2 > far
    # Counts have unit norm before the projection, so norms are close to 1.
    assert ((features.norm(dim=1) > 0.6) & (features.norm(dim=1) < 1.5)).all()
    # Only the start of a text is read.
    assert torch.equal(encode_media(encoder, ["ab " * 5000])[0], encode_media(encoder, ["ab " * 6000])[0])


def test_colors_and_shapes_of_images_have_different_features():
    encoder = create("builtin:color")
    red, dark_red, blue = (encode_media(encoder, [disk(color)])[0] for color in ((200, 0, 0), (180, 9, 9), (0, 0, 200)))
    assert cosine_similarity(red, dark_red, dim=0) > cosine_similarity(red, blue, dim=0) + 0.03
    for image in (np.zeros((1, 1, 3), np.uint8), np.full((3, 2000, 3), 255, np.uint8), disk((9, 9, 9))):
        features = encode_media(encoder, [image])[0]
        assert torch.isfinite(features).all()
        assert features.norm() > 0.5


def test_an_image_keeps_its_proportions_or_not():
    wide = disk((0, 0, 0), 20, 80)
    pad, crop, stretch = (SquarePixels(40, fit) for fit in ("pad", "crop", "stretch"))
    assert pad(wide)["pixels"].shape == (3, 40, 40)
    assert (pad(wide)["pixels"][:, :15] == 255).all()
    assert (
        (crop(wide)["pixels"] < 128).sum() > (stretch(wide)["pixels"] < 128).sum() > (pad(wide)["pixels"] < 128).sum()
    )


def test_tones_are_in_their_bands():
    encoder = create("builtin:logmel")
    low, high = encode_media(encoder, [tone(300), tone(3000)])
    assert low[:64].argmax() < 15
    assert 30 < high[:64].argmax() < 60
    loud_and_soft = Audio(np.concatenate([tone(300).samples, 0.01 * tone(300).samples]), 16000)
    changing = encode_media(encoder, [loud_and_soft])[0]
    assert changing[64 + low[:64].argmax()] > 3 > 2 * low[64 + low[:64].argmax()]
    silence = encode_media(encoder, [Audio(np.zeros(10, np.float32), 16000), Audio(np.zeros(16000, np.float32), 16000)])
    torch.testing.assert_close(silence[0], silence[1])
    assert torch.isfinite(silence).all()


def test_the_length_of_other_sounds_does_not_matter():
    encoder = create("builtin:logmel-conv")
    sounds = [tone(300, 0.05), tone(500, 0.91), tone(900, 3)]
    together = encode_media(encoder, sounds)
    alone = torch.cat([encode_media(encoder, [sound]) for sound in sounds])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_video_has_the_mean_features_of_its_frames():
    frames = [disk((200, 0, 0)), disk((0, 200, 0)), disk((0, 0, 200))]
    for name in ("builtin:color", "builtin:conv"):
        encoder = create(f"builtin:frames:{name}?frames=3")
        assert encoder.decoding.frames == 3
        videos = [Video(np.stack(frames)), Video(np.stack(frames[:1]))]
        features = encode_media(encoder, videos)
        expected = encode_media(create(name), frames)
        torch.testing.assert_close(features, torch.stack([expected.mean(0), expected[0]]), atol=1e-6, rtol=1e-5)


def test_vectors_are_kept_or_their_logarithms_taken():
    vector = np.array([-3.0, 0.0, 1.5], np.float32)
    assert encode_media(create("builtin:identity?dim=3"), [vector]).tolist() == [vector.tolist()]
    logarithms = encode_media(create("builtin:log1p?dim=3"), [vector])[0]
    np.testing.assert_allclose(logarithms.numpy(), np.sign(vector) * np.log1p(np.abs(vector)), rtol=1e-6)
    assert create("builtin:log1p?dim=3").decoding.dim == 3


@pytest.mark.parametrize("name", ["builtin:conv", "builtin:bag", "builtin:logmel-conv", "builtin:frames:builtin:conv"])
def test_trainable_encoders_learn(name):
    encoder = create(name)
    media = {"image": [disk((200, 0, 0)), disk((0, 200, 0))], "text": ["cat", "dog"], "audio": [tone(300), tone(900)]}
    given = media.get(encoder.media) or [Video(np.stack([disk((200, 0, 0))] * 2)), Video(disk((0, 9, 0))[None])]
    batch = encoder.collate([encoder.prepare(value) for value in given])
    target = torch.zeros(2, encoder.dim)
    optimizer = torch.optim.Adam(encoder.module.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = (encoder.encode(batch) - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in encoder.module.parameters())


def test_the_spectrogram_equals_that_of_torch():
    samples = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    window = torch.hann_window(400)
    expected = torch.stft(torch.from_numpy(samples), 400, 160, window=window, return_complex=True).abs().square().T
    np.testing.assert_allclose(Spectrogram(400, 160, 400)(samples), expected.numpy(), rtol=2e-3, atol=1e-3)
    bands = MelBands(16000, 400, 40, 0, 8000, scale="slaney", unit_area=True)
    response = bands(np.eye(201))
    # Each triangle has area 1; the sum over frequencies is an approximation of the integral.
    assert np.allclose(response[:, 10:].sum(0) * 40, 1, atol=0.15)
    assert (MelBands(16000, 400, 40, 0, 8000)(np.eye(201)).max(0) <= 1).all()
