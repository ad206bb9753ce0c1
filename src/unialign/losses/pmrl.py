"""PMRL: rank-one tuples with contrasted leading directions (Liu et al. 2025)."""

import torch

from unialign._checks import check_temperature
from unialign.batch import Batch
from unialign.functional import self_contrast, singular_parts
from unialign.losses._objective import LossTerm, Objective
from unialign.ops import select_items


class PMRL(Objective):
    """Cross-entropy of the largest singular value of each tuple, plus InfoNCE of the leading directions.

    Let sigma_1 >= sigma_2 >= ... be the singular values and u_1 the leading left singular vector of an item's D x M
    matrix. The term `rank_one` = mean_i [ log sum_k exp(sigma_ik / tau_intra) - sigma_i1 / tau_intra ] makes the
    modalities of an item collinear. The term `direction_contrast`, InfoNCE of u_1 with itself across the batch at
    tau_inter, separates items.

    PMRL has no anchor and uses items with at least two modalities. u_1 is oriented toward the tuple's mean. Singular
    values ignore the sign of each vector (opposite vectors also have rank one), so PMRL trains poorly from scratch. The
    authors start from a contrastively trained model; see `infonce_warmup_ratio` of `unialign.fit`. Their binary
    matching term requires an encoder over token pairs and is not part of this loss.

    Args:
        intra_temperature: tau of the singular values; 0.01 in the authors' pre-training, 0.05 in their fine-tuning.
        inter_temperature: tau of the directions; 0.1 as published.
    """

    name = "pmrl"
    display_name = "PMRL"
    # Singular values ignore signs, as volumes do.
    initialization = "contrastive"

    def __init__(self, *, intra_temperature: float = 0.01, inter_temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(intra_temperature, "intra_temperature")
        check_temperature(inter_temperature, "inter_temperature")
        self.intra_temperature, self.inter_temperature = intra_temperature, inter_temperature

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        tuples_B = batch.present_MB.sum(0) >= 2
        if not bool(tuples_B.any()):
            return {}
        sigma_BK, own_BK, direction_BD = singular_parts(batch)
        logits_BK = sigma_BK / self.intra_temperature
        # Items without singular values have the log-sum-exp of an empty set and are excluded from the mean below.
        kept_BK = own_BK | ~tuples_B[:, None]
        loss_B = torch.logsumexp(torch.where(kept_BK, logits_BK, -torch.inf), 1) - logits_BK[:, 0]
        rank_one = torch.where(tuples_B, loss_B, 0.0).sum() / tuples_B.sum()
        contrast = self_contrast(direction_BD, select_items(batch, tuples_B), temperature=self.inter_temperature)
        return {
            "rank_one": LossTerm(rank_one.to(contrast.dtype), 1.0),
            "direction_contrast": LossTerm(contrast, 1.0),
        }
