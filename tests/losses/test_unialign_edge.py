"""Test edge cases of UniAlign."""

import torch

import unialign as ua


def test_centroid_terms_exclude_tuples_that_cancel():
    """An item with opposite rows has no centroid and must not affect the other items."""
    z = {"a": torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    z["b"] = z["a"] + 0.1
    z["b"][2] = -z["a"][2]
    loss = ua.losses.UniAlign(anchor="centroid", uniformity_weight=0.0, centroid_weight=1.0, temperature=0.5)
    kept = torch.tensor([0, 1, 3])
    whole, rest = loss(z), loss({name: rows[kept] for name, rows in z.items()})
    torch.testing.assert_close(whole.total, rest.total)
    assert set(whole.terms) == {"alignment", "centroid"}
