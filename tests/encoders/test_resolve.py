"""Test the choice of one encoder per modality."""

import pytest

from unialign.encoders import create, resolve
from unialign.errors import ConfigError

KINDS = {"picture": "image", "text": "text", "speech_fr": "audio", "speech_es": "audio", "gene": "array"}


def test_exact_names_are_preferred_to_patterns_and_equal_names_share_an_encoder():
    own = create("builtin:logmel?seconds=2")
    made = resolve(
        {
            "speech_*": "builtin:logmel",
            "speech_es": own,
            "picture": "builtin:color",
            "text": "builtin:chars",
            "g[e]ne": "builtin:log1p",
        },
        KINDS,
        dims={"gene": 7},
    )
    assert list(made) == list(KINDS)
    assert made["speech_es"] is own
    assert made["speech_fr"].decoding.seconds == 30
    assert made["gene"].dim == 7
    shared = resolve({"speech_*": "builtin:logmel"}, {"speech_fr": "audio", "speech_es": "audio"})
    assert shared["speech_fr"] is shared["speech_es"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"text": "builtin:chars", "speech*": "builtin:logmel"}, "an encoder was given for 'speech\\*', but the modal"),
        ({"txt": "builtin:chars"}, "the modality 'text' has no encoder"),
        ({"t*": "builtin:chars", "te*": "builtin:bag"}, "the modality 'text' matches both 't\\*' and 'te\\*'"),
        ({"text": "builtin:color"}, "encodes image, not text"),
        ({"text": 3}, "the encoder of 'text' must be a name"),
        ("builtin:chars", "encoders must be a mapping of modality to encoder"),
    ],
)
def test_choices_that_do_not_fit_raise(choices, message):
    with pytest.raises(ConfigError, match=message):
        resolve(choices, {"text": "text"})


def test_an_instance_of_another_kind_of_media_raises():
    with pytest.raises(ConfigError, match="'text' is of kind text, but its encoder encodes audio"):
        resolve({"text": create("builtin:logmel")}, {"text": "text"})
