"""Disable measurements that a test file does not check, which halves the duration of a diagnosis."""

import pytest

from unialign.diagnostics import _details, _measure

# These files test reading, pairing and copies of rows. They do not check numbers about mixed galleries and cut-offs.
_WITHOUT_DETAILS = {"test_copies", "test_match", "test_row_alignment", "test_sources"}


@pytest.fixture(autouse=True, scope="module")
def _few_details(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ in _WITHOUT_DETAILS:
            patch.setattr(_measure, "measure_details", lambda *_, **__: _details.SpaceDetails())
        elif request.module.__name__ == "test_findings":
            patch.setattr(_details, "_MAX_ITEMS", 128)
        yield
