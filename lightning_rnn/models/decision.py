"""From logits to probabilities and classes: what is set after training is state of the network."""

import torch
from torch import Tensor, nn


class Decision(nn.Module):
    """Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2) and, for two classes, a threshold.

    Attributes:
        temperature: () buffer by which logits are divided; 1 until it is fitted.
        threshold: () buffer, the probability above which the second of two classes is decided; 0.5 until it is fitted.
    """

    temperature: Tensor
    threshold: Tensor

    def __init__(self) -> None:
        """Set up with temperature 1 and threshold 0.5."""
        super().__init__()
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("threshold", torch.tensor(0.5))

    def set(self, temperature: float = 1.0, threshold: float = 0.5) -> None:
        """Take fitted values; without arguments, those of a network that was never calibrated."""
        self.temperature.fill_(temperature)
        self.threshold.fill_(threshold)

    @property
    def is_fitted(self) -> bool:
        """Whether any value differs from those of a network that was never calibrated."""
        return (float(self.temperature), float(self.threshold)) != (1.0, 0.5)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (B,) probabilities of the second class, or (B, K), in float32 from logits of any precision."""
        scaled = logits.float() / self.temperature
        return scaled.sigmoid() if logits.ndim == 1 else scaled.softmax(1)

    def table(self, logits: Tensor) -> Tensor:
        """Return the (B, K) probabilities of all classes, of two classes as well."""
        p = self.probabilities(logits)
        return torch.stack([1 - p, p], dim=1) if p.ndim == 1 else p

    def decide(self, logits: Tensor) -> Tensor:
        """Return the class codes (B,): by the threshold for two classes, the most probable of more."""
        if logits.ndim == 2:
            return logits.argmax(1)
        return (self.probabilities(logits) > self.threshold).long()
