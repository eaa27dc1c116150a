"""Trained members of an ensemble, to be evaluated as often as one likes without training again."""

import equinox as eqx
import jax.numpy as jnp

from ntkbayes._problem import TrainingSet, checked_inputs
from ntkbayes._types import AnyArray, Array, Float
from ntkbayes.ensembles.initial import InitialFunctions
from ntkbayes.networks import WideNetwork

__all__ = ["Members"]


class Members(eqx.Module):
    """Trained functions f₀(x) + Θ(x, X) b.

    Attributes
    ----------
    functions
        The initial functions f₀.
    coefficients
        b of each member.
    stats
        One number per member: the certificate of its training, where there is one.
    """

    network: WideNetwork
    train: TrainingSet
    functions: InitialFunctions
    coefficients: Float[Array, "s n c"]
    stats: dict[str, Array]

    def evaluate(self, x: AnyArray) -> tuple[Float[Array, "s m c"], "Members"]:
        """Values at the rows of x (m d), and the members with these values settled.

        Go on with the returned members: then what they say at further points is consistent with
        these, as if all points had been asked for at once.

        Raises
        ------
        ValueError
            If x does not fit the training data.
        """
        x_test = checked_inputs(self.train, x)
        initial, functions = self.functions.evaluate(x_test)
        ntk = self.network.ntk(x_test, self.train.x)
        values = initial + jnp.einsum("mn,snc->smc", ntk, self.coefficients)
        return values, eqx.tree_at(lambda members: members.functions, self, functions)
