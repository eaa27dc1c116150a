"""Bins of a confidence by comparing every one with every boundary."""

import numpy as np


def points_in_bins(confidence, binning, num_bins):
    """Return the points of each bin, closed on the right, as lists of indices."""
    ordered, m = sorted(confidence), len(confidence)
    edges = [k / num_bins for k in range(1, num_bins)]
    if binning == "mass":
        edges = [ordered[int(np.ceil(k * m / num_bins)) - 1] for k in range(1, num_bins)]
    bins = [sum(q > edge for edge in edges) for q in confidence]
    return [[i for i in range(m) if bins[i] == b] for b in range(num_bins)]
