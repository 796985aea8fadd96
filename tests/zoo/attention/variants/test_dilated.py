"""A mechanism that is only its pattern: the picture of it, and what it gets for free."""

import numpy as np

from zoo.attention import mechanism
from zoo.ops.patterns import BoundPattern, numpy_mask

DECLARED = mechanism("dilated")


def test_the_pattern_alone_gives_the_free_implementations() -> None:
    assert tuple(DECLARED.implementations) == ("masked", "tiled", "native", "auto")
    capabilities = DECLARED.capabilities(DECLARED.config(), "masked")
    assert capabilities.causal
    assert capabilities.bidirectional
    assert capabilities.decode


def test_a_causal_query_sees_window_size_keys_with_gaps() -> None:
    pattern = BoundPattern(DECLARED.pattern, DECLARED.config(window_size=3, dilation=4))
    allowed = numpy_mask(pattern, causal=True, query_length=17, key_length=17)
    assert np.flatnonzero(allowed[15]).tolist() == [7, 11, 15]
    assert np.flatnonzero(allowed[2]).tolist() == [2]


def test_dilation_one_is_the_sliding_window() -> None:
    window = mechanism("sliding_window")
    for causal in (True, False):
        masks = [
            numpy_mask(BoundPattern(declared.pattern, config), causal=causal, query_length=19, key_length=19)
            for declared, config in (
                (DECLARED, DECLARED.config(window_size=5, dilation=1)),
                (window, window.config(window_size=5)),
            )
        ]
        assert (masks[0] == masks[1]).all()
