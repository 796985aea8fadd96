"""The short convolution: against its definition, over every cut, and never across documents."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops.convolution import short_convolution

B, C = 2, 5


def _inputs(length: int, taps: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(length)
    x, weight = generator.standard_normal((B, length, C)), generator.standard_normal((taps, C))
    return x.astype(np.float32), weight.astype(np.float32)


def _expected(x: np.ndarray, weight: np.ndarray, segments: np.ndarray | None = None) -> np.ndarray:
    y, taps = np.zeros(x.shape), weight.shape[0]
    for row in range(B):
        for t in range(x.shape[1]):
            for distance in range(min(taps, t + 1)):
                if segments is None or segments[row, t] == segments[row, t - distance]:
                    y[row, t] += weight[taps - 1 - distance].astype(np.float64) * x[row, t - distance]
    return y


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 11])
def test_values_equal_the_definition(length: int, taps: int) -> None:
    x, weight = _inputs(length, taps)
    y, tail = short_convolution(mx.array(x), mx.array(weight))
    assert np.abs(np.array(y) - _expected(x, weight)).max() <= tolerance(mx.float32)
    assert tail.shape == (B, taps - 1, C)


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("cuts", [[1] * 11, [2, 1, 8], [5, 6], [10, 1]])
def test_any_cut_equals_the_whole(cuts: list[int], taps: int) -> None:
    x, weight = (mx.array(array) for array in _inputs(11, taps))
    whole, last = short_convolution(x, weight)
    outputs, tail, start = [], None, 0
    for length in cuts:
        y, tail = short_convolution(x[:, start : start + length], weight, tail_BPC=tail)
        outputs.append(y)
        start += length
    assert mx.abs(mx.concatenate(outputs, axis=1) - whole).max().item() <= tolerance(mx.float32)
    assert tail is not None
    assert mx.array_equal(tail, last).item()


@pytest.mark.parametrize("start", range(1, 7))
def test_taps_do_not_cross_documents(start: int) -> None:
    x, weight = _inputs(7, 4)
    segments = np.zeros((B, 7), dtype=np.int32)
    segments[0, start:], segments[1, start:], segments[1, start + 1 :] = 1, 4, 5
    y, _ = short_convolution(mx.array(x), mx.array(weight), segments_BL=mx.array(segments))
    assert np.abs(np.array(y) - _expected(x, weight, segments)).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_documents_shorter_than_the_taps_are_handled(length: int) -> None:
    x, weight = _inputs(length, 4)
    segments = np.arange(length, dtype=np.int32)[None].repeat(B, axis=0)
    y, _ = short_convolution(mx.array(x), mx.array(weight), segments_BL=mx.array(segments))
    assert np.abs(np.array(y) - x * weight[-1]).max() <= tolerance(mx.float32)
