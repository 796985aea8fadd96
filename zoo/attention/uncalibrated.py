"""Which implementation to take where nothing was measured: rules of thumb, each with its reason.

They hold for the implementations of this project by their names; a mechanism of another package whose names they do
not know gets its own default, the first.
"""

from collections.abc import Sequence

from zoo.attention.calibration import Phase
from zoo.attention.mechanism import NATIVE
from zoo.ops.tiled import SMALLEST_TILE
from zoo.runtime.backend import Backend

# Softmax over the whole score matrix, best first. `masked` is the fused kernel with a mask.
DENSE = ("fused", "masked", "manual")
TILED = "tiled"
# MLX trains its fused kernel unfused: the scores and their gradient are kept for the backward pass, layer by layer.
# A gigabyte a layer is what a model of a dozen layers can hold on common devices.
MAX_DENSE_SCORE_BYTES = 2**30
SCORE_BYTES = 4


def uncalibrated_choice(
    implementations: Sequence[str], *, phase: Phase, rows: int, length: int, device: Backend
) -> str:
    """The implementation to take.

    Args:
        implementations: Those that there are, the mechanism's default first; at least one.
        phase: Which call.
        rows: Batch size times query heads.
        length: L, or the tokens in the cache.
        device: The back end.

    Returns:
        One of them.
    """
    default = implementations[0]
    # Only where it can be computed is it among them: compiled tiles that skip what the pattern hides, in every phase.
    if device == "cpu" and NATIVE in implementations:
        return NATIVE
    dense = next((name for name in DENSE if name in implementations), None)
    # A single token reads each key once, whatever the implementation; and without a dense form there is no trade.
    if phase == "decode" or dense is None:
        return default
    tiled = TILED if TILED in implementations else dense
    if device == "cpu" and phase == "forward" and length <= SMALLEST_TILE:
        # One tile is the whole matrix, with an exponential cheaper than MLX's; backward, its recomputation costs more.
        return tiled
    if length <= SMALLEST_TILE:
        return dense
    if default not in (*DENSE, TILED):
        # A form that skips what the pattern hides, beyond the lengths at which it hides little.
        return default
    if device == "cpu":
        # MLX's exponential on a CPU is scalar, and a matrix of scores does not fit the caches.
        return tiled
    too_large = phase == "training" and rows * length**2 * SCORE_BYTES > MAX_DENSE_SCORE_BYTES
    return tiled if too_large else dense
