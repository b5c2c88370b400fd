"""What several studies say in the same words: definitions of metrics, and limits."""

PAIRS_SHARE_SEEDS = "Pairs share seeds: a range over pairs is no interval for another seed."

R2 = "of a map: 1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖² on documents that did not fit it, ȳ the mean of each dimension"
DETERMINED_DIMENSION = (
    "of R: r, the directions with standard error below 0.1 rad in all planes among them, and a sign"
)
DIMENSION = "of the activations: d"
EXPLAINED_VARIANCE = (
    "of an SAE through a map there and back: `centred`: 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², of the target's "
    "activations, x̄ the mean of each dimension; `paper`: 1 − mean squared error / variance over all "
    "entries of what the SAE sees, where a constant is above 0"
)
L0 = "of an SAE: features that fire on a token"
