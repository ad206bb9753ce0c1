"""Triplet loss with the hardest negative of the batch (Faghri et al. 2018, VSE++)."""

from itertools import combinations
from typing import Any

import torch

from unialign.batch import Batch
from unialign.losses import LossTerm, Objective

__all__ = ["HardestNegative"]


class HardestNegative(Objective):
    """Mean of relu(margin - cos(positive) + cos(hardest negative)) over items, directions and pairs of modalities.

    Args:
        margin: margin between cosines.
    """

    name = "hardest_negative"
    display_name = "Hardest negative"

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = float(margin)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        values = {}
        for m, n in combinations(range(len(batch.names)), 2):
            both_B = batch.present_MB[m] & batch.present_MB[n]
            if int(both_B.sum()) < 2:
                continue
            cosine_BB = batch.z_MBD[m, both_B] @ batch.z_MBD[n, both_B].mT
            positive_B = cosine_BB.diagonal()
            same_BB = torch.eye(len(positive_B), dtype=torch.bool, device=cosine_BB.device)
            if batch.ids_B is not None:  # same-id items are not negatives of each other
                ids_B = batch.ids_B[both_B]
                same_BB = ids_B[:, None] == ids_B[None, :]
            negative_BB = cosine_BB.masked_fill(same_BB, -1.0)
            hinges = [(self.margin - positive_B + negative_BB.amax(side)).relu().mean() for side in (0, 1)]
            values[f"hinge/{batch.names[m]}-{batch.names[n]}"] = (hinges[0] + hinges[1]) / 2
        return {name: LossTerm(value, 1 / len(values)) for name, value in values.items()}

    def get_config(self) -> dict[str, Any]:
        return {"margin": self.margin}
