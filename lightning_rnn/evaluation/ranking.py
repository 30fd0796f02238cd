"""Areas under the ROC curve and the precision-recall curve, and the influence of each sequence."""

import torch
from torch import Tensor


class Ranking:
    """Sequences in descending order of their scores (N,), for one class against the rest.

    Args:
        scores: (N,) scores of the class.
        is_positive: (N,) bool, whether a sequence is of the class.

    Attributes:
        areas: auroc, the probability that a positive scores above a negative, where ties count
            half; and average_precision, the mean of the precisions at each distinct score, weighted
            by the increase in recall.
    """

    def __init__(self, scores: Tensor, is_positive: Tensor) -> None:
        ordered, self._order = scores.sort(descending=True)
        is_last = torch.ones_like(ordered, dtype=torch.bool)  # of the sequences with its score
        is_last[:-1] = ordered[1:] != ordered[:-1]
        last = is_last.nonzero().view(-1)  # (V,)
        self._repeats = torch.diff(last, prepend=last.new_tensor([-1]))
        self._is_positive = is_positive[self._order]
        self._true = self._is_positive.double().cumsum(0)[last]  # at each distinct score
        self._retrieved = (last + 1).double()
        self._positives = torch.diff(self._true, prepend=self._true.new_zeros(1))
        self._precision = self._true / self._retrieved
        self._share_of_false = 1 / (self._retrieved[-1] - self._true[-1])
        self._share_of_true = 1 / self._true[-1]
        false = self._retrieved - self._true
        negatives = torch.diff(false, prepend=false.new_zeros(1))
        self._negatives_below = (false[-1] - false + negatives / 2) * self._share_of_false
        self._positives_above = (self._true - self._positives / 2) * self._share_of_true
        self.areas = {
            "auroc": (self._positives * self._negatives_below).sum() * self._share_of_true,
            "average_precision": (self._positives * self._precision).sum() * self._share_of_true,
        }

    def influence(self, name: str) -> Tensor:
        """Return the (N,) derivatives of an area by the weight of each sequence.

        Those of auroc are the components of DeLong et al. 1988, Biometrics 44.
        """
        area = self.areas[name]
        if name == "auroc":
            of_positives = (self._negatives_below - area) * self._share_of_true  # (V,)
            of_negatives = (self._positives_above - area) * self._share_of_false
        else:
            per_positive = self._positives / self._retrieved
            lost = sums_to_the_end(per_positive * self._precision)
            gained = sums_to_the_end(per_positive) + self._precision - area
            of_negatives = -lost * self._share_of_true
            of_positives = gained * self._share_of_true + of_negatives
        of_positives = of_positives.repeat_interleave(self._repeats)
        of_negatives = of_negatives.repeat_interleave(self._repeats)
        influence = torch.empty_like(of_positives)
        influence[self._order] = torch.where(self._is_positive, of_positives, of_negatives)
        return influence


def sums_to_the_end(values: Tensor) -> Tensor:
    """Return (V,) sums of values (V,) from each position to the end."""
    return values.flip(0).cumsum(0).flip(0)
