"""The table of AttnBench's article: milliseconds on an M4, forward, B=1, 8 heads of 64, as printed."""

from collections.abc import Mapping

LENGTHS = (128, 256, 512, 1024)
MILLISECONDS: Mapping[str, tuple[float | None, ...]] = {
    "MHA": (1.04, 1.42, 1.72, 4.38),
    "GQA (kv=4)": (0.87, 1.37, 1.59, 4.20),
    "MQA (kv=1)": (1.12, 1.37, 1.59, 3.97),
    "SWA (gather)": (7.08, 12.35, None, None),
    "MaskedSWA": (1.24, 1.69, 1.84, 5.10),
    "BlockSparse (bs=32)": (1.31, 1.63, 1.71, 2.31),
    "BlockSparse (bs=64)": (1.43, 1.80, 1.81, 2.46),
    "LinearAttn": (1.62, 1.82, 2.01, 2.75),
    "CausalLinear": (2.64, 3.18, 5.94, None),
}
# Every mean of the published data had a standard deviation of exactly this share of it.
NUM_MEANS = 45
RELATIVE_SPREAD = 0.05


def measured(name: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Lengths and seconds of one line, without its gaps."""
    cells = [(length, ms) for length, ms in zip(LENGTHS, MILLISECONDS[name], strict=True) if ms is not None]
    return tuple(length for length, _ in cells), tuple(ms / 1000 for _, ms in cells)
