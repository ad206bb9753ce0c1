"""Test that limits of media are whole numbers."""

import pytest

from unialign.config import EmbedConfig
from unialign.errors import ConfigError


def test_limits_other_than_seconds_are_integers() -> None:
    assert EmbedConfig(limits={"pixels": 4.0, "seconds": 0.5}).limits["seconds"] == 0.5
    for limit in (1.5, 0.5):
        with pytest.raises(ConfigError, match=r"limits\.pixels must be a positive integer"):
            EmbedConfig(limits={"pixels": limit})
