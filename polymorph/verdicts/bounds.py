"""The bounds that verdicts are held against, fixed before anything is run."""

BEYOND_AFFINE = 0.05
"""Of R²: an affine map further below the ceiling does not say all."""
GAP = 0.01
"""Of R²: a freer family of maps that gains no more gains nothing that counts."""
LEAST_HAAR_DIMENSION = 12
"""Below it the registered pair of tests misses a block-diagonal rotation too often to let Haar pass."""
