"""The conditions under which networks are trained: which loss, which targets, which decay."""

import equinox as eqx

from ntkbayes._checks import check_choice, check_positive
from ntkbayes._types import AnyArray, Array, Float
from ntkbayes.likelihoods import Categorical, Gaussian, Likelihood, smooth_labels

__all__ = ["CONDITIONS", "DECAYS", "LOSSES", "Condition"]

DECAYS = ("initial", "zero")
LOSSES = ("cross_entropy", "squared_error")


class Condition(eqx.Module):
    """One objective, −Σ log p(yᵢ | f(xᵢ; θ)) + ½ λ ‖θ − center‖².

    Parameters
    ----------
    title, description
        What figures and tables call it, and one line that says what happens under it.
    label_smoothing
        ε: targets are (1 − ε) onehot(y) + ε/c. Zero: one-hot.
    prior_precision
        λ ≥ 0, against the summed loss.
    decay
        What weights decay towards: ``"initial"``, center = θ₀, or ``"zero"``, center = 0.
    loss
        ``"cross_entropy"``, or ``"squared_error"`` ½ Σ (y − f)², of Gaussian noise of variance 1.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> weak = nb.lazy.Condition("weak decay", "cross-entropy, weak decay", prior_precision=0.01)
    >>> weak.likelihood(3).settings(), weak.decays_to_zero
    ({'name': 'Categorical', 'num_outputs': 3}, False)
    """

    title: str
    description: str
    label_smoothing: float = 0.0
    prior_precision: float = 0.0
    decay: str = "initial"
    loss: str = "cross_entropy"

    def __check_init__(self):
        check_positive("prior_precision", self.prior_precision, or_zero=True)
        check_choice("decay", self.decay, DECAYS)
        check_choice("loss", self.loss, LOSSES)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1, but is {self.label_smoothing}."
            )

    @property
    def decays_to_zero(self) -> bool:
        """Whether the decay moves weights that the data do not."""
        return self.decay == "zero" and self.prior_precision > 0

    def likelihood(self, num_classes: int) -> Likelihood:
        """Return the likelihood whose negative logarithm is the loss."""
        if self.loss == "squared_error":
            return Gaussian(1.0, num_outputs=num_classes)
        return Categorical(num_classes)

    def targets(self, y: AnyArray, num_classes: int) -> Float[Array, "n c"]:
        """One-hot or smoothed targets from class indices."""
        if self.label_smoothing > 0:
            return smooth_labels(y, num_classes, label_smoothing=self.label_smoothing)
        return Categorical(num_classes).targets(y)

    def settings(self) -> dict[str, str | float]:
        """Return what decides the results; the texts do not."""
        return {
            "label_smoothing": self.label_smoothing,
            "prior_precision": self.prior_precision,
            "decay": self.decay,
            "loss": self.loss,
        }


CONDITIONS: dict[str, Condition] = {
    "regularized": Condition(
        "regularised",
        "cross-entropy, one-hot targets, weights decay towards the initial ones",
        prior_precision=1.0,
    ),
    "unregularized": Condition(
        "unregularised", "cross-entropy, one-hot targets: logits grow without bound"
    ),
    "smoothed": Condition(
        "smoothed targets", "cross-entropy, smoothed targets, no decay", label_smoothing=0.1
    ),
    "smoothed_regularized": Condition(
        "smoothed and regularised",
        "cross-entropy, smoothed targets, weights decay towards the initial ones",
        label_smoothing=0.1,
        prior_precision=1.0,
    ),
    "decay_to_zero": Condition(
        "decay to zero",
        "cross-entropy, one-hot targets, weights decay towards zero, and the kernel with them",
        prior_precision=1.0,
        decay="zero",
    ),
    "squared_error": Condition(
        "squared error",
        "squared error on one-hot targets, weights decay towards the initial ones",
        prior_precision=1.0,
        loss="squared_error",
    ),
}
"""The conditions of a sweep, by name."""
