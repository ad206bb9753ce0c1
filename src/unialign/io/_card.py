"""Update a model card: only the text between markers is replaced, so that edits around it are kept."""

import re

# Start and end of a marked text in Markdown, and in the YAML at the top of a card.
MARKERS = (
    ("<!-- unialign: start; this part is replaced when the model is saved again -->", "<!-- unialign: end -->"),
    ("# unialign: start; these entries are replaced when the model is saved again", "# unialign: end"),
)
_MARKED = tuple(
    re.compile(rf"^{re.escape(start.partition(';')[0])}\b[^\n]*\n.*?^{re.escape(end)}[^\n]*$", re.DOTALL | re.MULTILINE)
    for start, end in MARKERS
)


def marked(text: str, *, is_yaml: bool = False) -> str:
    start, end = MARKERS[is_yaml]
    return f"{start}\n{text.strip()}\n{end}"


def updated_card(existing: str, new: str) -> str:
    for pattern in _MARKED:
        replacement = pattern.search(new)
        if replacement is not None:
            text = replacement.group()
            existing = pattern.sub(lambda _, text=text: text, existing, count=1)  # type: ignore[misc]
    return existing
