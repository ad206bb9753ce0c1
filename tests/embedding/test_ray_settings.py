"""Test the settings of actors of the Ray engine, without Ray."""

from types import SimpleNamespace
from typing import Any

import pytest

from unialign.embedding import _ray
from unialign.errors import ConfigError


def test_actors_need_a_cpu_for_each_thread() -> None:
    assert _ray._number_of_actors({"CPU": 8}, "auto", 100, "cpu", 1) == 7
    assert _ray._number_of_actors({"CPU": 8}, "auto", 100, "cpu", 3) == 2
    with pytest.raises(ConfigError, match="3 Ray actors need 10 CPUs"):
        _ray._number_of_actors({"CPU": 8}, 3, 100, "cpu", 3)


@pytest.mark.parametrize("offline", [True, None])
def test_actors_load_encoders_without_network(offline: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(_ray, "load", lambda reference, **options: given.append((reference, options)))
    plan: Any = SimpleNamespace(settings=SimpleNamespace(device_type="cpu"))
    column: Any = SimpleNamespace(encoder="sha", reference={"kind": "timm"})
    _ray._Work(plan, [], {}, offline)._encoder(column)
    assert given == [({"kind": "timm"}, {"device": "cpu", "offline": offline})]
