"""float32 arithmetic in NumPy, one term after another: the order in which rounding shows most."""

import numpy as np

U = 2.0**-24


def summed(terms, axis=0):
    """The sum over an axis (or several, first to last), each partial sum rounded."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    kept = [i for i in range(terms.ndim) if i not in axes]
    size = int(np.prod([terms.shape[i] for i in axes], dtype=int))
    rows = terms.transpose(*axes, *kept).reshape(size, *(terms.shape[i] for i in kept))
    assert rows.dtype == np.float32
    return np.add.accumulate(rows, axis=0)[-1]


def matmul(a, b):
    """(N, I) by (I, O)."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for row in range(a.shape[1]):
        total += a[:, row, None] * b[row]
    return total


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, np.float32(1.0), e) / (np.float32(1.0) + e)


def ratio(computed, exact, terms):
    """The largest error / bound; 0 where both are 0."""
    error = np.abs(np.asarray(computed, np.float64) - exact)
    bound = sum(terms.values(), start=np.zeros(exact.shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error == 0.0, 0.0, error / bound).max())
