"""Test which length the vectors of a modality have if their lengths differ."""

from unialign.data import Items
from unialign.embedding._choices import chosen_encoders


def test_the_most_frequent_length_of_vectors_is_used() -> None:
    vectors = [[1.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0, 2.0], [7.0, 8.0, 9.0]]
    items = Items.from_records([{"v": vector} for vector in vectors], kinds={"v": "array"})
    assert chosen_encoders(items, None, device="cpu", offline=None)["v"].dim == 3
