"""Conversion of logits to probabilities and classes."""

import torch
from torch import Tensor, nn


class Decision(nn.Module):
    """Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2) and a threshold.

    Both values are fitted after training and saved with the weights of the network.

    Attributes:
        temperature: () buffer, divides the logits; 1 if not fitted.
        threshold: () buffer, probability above which the second of two classes is predicted; 0.5 if
            not fitted.
    """

    temperature: Tensor
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("threshold", torch.tensor(0.5))

    def set(self, temperature: float = 1.0, threshold: float = 0.5) -> None:
        """Set both values; without arguments, to those of a network that is not calibrated."""
        self.temperature.fill_(temperature)
        self.threshold.fill_(threshold)

    @property
    def is_fitted(self) -> bool:
        """Whether the values differ from those of a network that is not calibrated."""
        return float(self.temperature) != 1.0 or float(self.threshold) != 0.5

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 probabilities: (B,) of the second of two classes, or (B, K) of all.

        `logits` have the same shape, and any precision.
        """
        scaled = logits.float() / self.temperature
        if logits.ndim == 1:
            return scaled.sigmoid()
        return scaled.softmax(1)

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (B, K) of all classes, also for two classes; float32."""
        probabilities = self.probabilities(logits)
        if logits.ndim == 1:
            return torch.stack([1 - probabilities, probabilities], dim=1)
        return probabilities

    def predict(self, logits: Tensor) -> Tensor:
        """Return the predicted class codes (B,): by the threshold, or the most probable of more."""
        if logits.ndim == 1:
            return (self.probabilities(logits) > self.threshold).long()
        return logits.argmax(1)
