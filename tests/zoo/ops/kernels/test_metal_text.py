"""The text of the Metal kernels, run on the processor: its arithmetic, its indices, its barriers and its memory.

Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.
"""

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.ops.kernels.on_cpu import COMPILER, forward_and_backward, inputs_of, run
from zoo.attention import mechanism, mechanism_names
from zoo.ops import native, softmax
from zoo.ops.masks import MaskSpec

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no g++")
N, K = 4, 2
# Tiles have 32 queries and 32 keys, and 64 numbers of a head are staged at a time.
TOLERANCE = 2e-5
PATTERNS = [
    name
    for name in mechanism_names()
    if mechanism(name).packaged and mechanism(name).why_no_kernels is native.why_no_native
]
SMALL = {
    "sliding_window": {"window_size": 9},
    "block_sparse": {"block_size": 7, "num_global_tokens": 2},
    "sinks": {"window_size": 11, "num_sinks": 3},
    "dilated": {"window_size": 13, "dilation": 3},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


def drawn(L, S, H, *, B=1):
    generator = np.random.default_rng(0)
    q, dy = (generator.standard_normal((B, N, L, H)).astype(np.float32) for _ in range(2))
    k, v = (generator.standard_normal((B, K, S, H)).astype(np.float32) for _ in range(2))
    return {"q": q, "k": k, "v": v}, dy


def expected(spec, arrays, dy):
    """The same by the plain implementation, whose rows that see nothing are zeros in the kernels."""
    q, k, v = (mx.array(arrays[each]) for each in "qkv")
    (y,), (dq, dk, dv) = mx.vjp(lambda *given: softmax.manual(*given, spec), [q, k, v], [mx.array(dy)])
    return {"y": np.array(y), "dq": np.array(dq), "dk": np.array(dk), "dv": np.array(dv)}


def assert_agree(spec, arrays, dy, folder):
    found, problems = forward_and_backward(spec, arrays, dy, folder)
    assert problems == ["", "", ""]
    seen = np.array(spec.visible(arrays["q"].shape[2], arrays["k"].shape[2]).any(axis=-1))
    dy = dy * seen[..., None]
    for name, theirs in expected(spec, arrays, dy).items():
        ours = found[name] * (seen[..., None] if name == "y" else 1)
        np.testing.assert_allclose(ours, theirs * (seen[..., None] if name == "y" else 1), atol=TOLERANCE, err_msg=name)


def spec_of(name, mask, H, *, slopes=None):
    declared = mechanism(name)
    parameters = declared.config(**SMALL.get(name, {}))
    spec = declared.make_spec(parameters, mask, H, slopes)
    if declared.learned is None:
        return spec
    return spec.with_learned([*declared.learned(parameters, N).values()], N)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("causal", [True, False])
def test_every_pattern_agrees(name, causal, folder):
    arrays, dy = drawn(45, 45, 20)
    assert_agree(spec_of(name, MaskSpec(causal=causal), 20), arrays, dy, folder)


@pytest.mark.parametrize(("L", "H"), [(1, 20), (31, 20), (33, 64), (65, 70)])
def test_odd_sizes_agree(L, H, folder):
    arrays, dy = drawn(L, L, H)
    assert_agree(spec_of("softmax", MaskSpec(causal=True), H), arrays, dy, folder)


@pytest.mark.parametrize("case", ["padded", "packed", "after a history", "slopes", "positions that are data"])
def test_masks_agree(case, folder):
    L, S, H, slopes = 40, 40, 20, None
    mask = MaskSpec(causal=True)
    if case == "padded":
        mask = MaskSpec(causal=False, lengths_B=mx.array([40, 17], dtype=mx.int32))
    elif case == "packed":
        segments = np.repeat([[0, 1, 2], [0, 0, 5]], [13, 14, 13], axis=1)
        mask = MaskSpec(causal=True, segments_BL=mx.array(segments.astype(np.int32)))
    elif case == "after a history":
        L, mask = 7, MaskSpec(causal=True, offset=33)
    elif case == "slopes":
        slopes = mx.array([0.5, 0.25, 0.125, 0.0625])
    else:
        L, mask = 7, MaskSpec(causal=True, offset=mx.array([33, 20], dtype=mx.int32))
    arrays, dy = drawn(L, S, H, B=2)
    assert_agree(
        spec_of("sliding_window" if case == "packed" else "softmax", mask, H, slopes=slopes), arrays, dy, folder
    )


# In the text of all of them and in one: what no longer waits, reads or writes elsewhere, and computes something else.
KERNELS = ["attention_forward", "attention_queries", "attention_keys"]
BARRIERS = {"before": ("BARRIER;", ";"), "after": ("\n  BARRIER\n", "\n")}
INDICES = {
    "an entry too many": (
        *("attention_forward", "outside"),
        ("entry < row_starts[group_x + 1]", "entry <= row_starts[group_x + 1]"),
    ),
    "a row too many": (
        *("attention_forward", "outside"),
        ("(first) + staged_row < (num_rows)", "(first) + staged_row <= (num_rows)"),
    ),
    "a row too many written": (
        *("attention_queries", "outside"),
        ("first_row + r < (num_rows) && dim", "first_row + r <= (num_rows) && dim"),
    ),
    "a query too many": (
        *("attention_keys", "outside"),
        ("(query) < SIZE_L && (key) < SIZE_S", "(query) <= SIZE_L && (key) < SIZE_S"),
    ),
    "a column too many": (
        *("attention_keys", "nobody wrote"),
        ("staged[dim * STRIDE + lane]", "staged[dim * STRIDE + lane + 1]"),
    ),
}
RESULTS = {
    "sums without a beginning": ("attention_forward", ("    sums[r * SLOTS + slot] = 0.0f;", "")),
    "scores without a beginning": ("attention_forward", ("    weights[r] = 0.0f;\n", "")),
    "sums that are not scaled anew": ("attention_forward", ("      sums[r * SLOTS + slot] *= kept;", "")),
    "a gradient without a beginning": ("attention_queries", ("  sums[at] = 0.0f;", "")),
    "a value's without a beginning": ("attention_keys", ("  value_sums[at] = 0.0f;", "")),
    "another head": ("attention_keys", ("head = group_y * group_size + member", "head = group_y + member * SIZE_K")),
    "a transposed mask": ("attention_forward", ("% TILE) * TILE + (query)", "% TILE) + TILE * (query)")),
}
FAULTY = [
    *((name, fault) for name in KERNELS for fault in BARRIERS.values()),
    *((name, fault) for name, _, fault in INDICES.values()),
    *RESULTS.values(),
]


@pytest.fixture(scope="module")
def right(folder):
    """What all kernels are given, and what each gives as it is."""
    spec = spec_of("softmax", MaskSpec(causal=True), 20)
    arrays, dy = drawn(45, 45, 20)
    given = inputs_of(spec, arrays)
    forward = run(("attention_forward", None), given, folder)
    deltas = (dy * forward.arrays["y"]).sum(-1).astype(np.float32)
    given |= {"dy": dy, "log_sums": forward.arrays["log_sums"], "deltas": deltas}
    return given, {name: run((name, None), given, folder) for name in KERNELS}


@pytest.fixture
def faulty(right, folder):
    """What a kernel with a fault gives."""
    return lambda name, fault: run((name, fault), right[0], folder, together=FAULTY)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("fault", BARRIERS.values(), ids=BARRIERS)
def test_a_missing_barrier_is_caught(name, fault, faulty):
    wrong = faulty(name, fault)
    assert "race" in wrong.problem or "nobody wrote" in wrong.problem


@pytest.mark.parametrize(("name", "said", "fault"), INDICES.values(), ids=INDICES)
def test_an_index_off_by_one_is_caught(name, said, fault, faulty):
    assert said in faulty(name, fault).problem


@pytest.mark.parametrize(("name", "fault"), RESULTS.values(), ids=RESULTS)
def test_a_wrong_result_is_seen(name, fault, right, faulty):
    wrong, expected = faulty(name, fault), right[1][name]
    assert expected.problem == ""
    different = [
        not np.allclose(wrong.arrays[each], expected.arrays[each], atol=TOLERANCE, equal_nan=False)
        for each in expected.arrays
    ]
    assert wrong.problem or any(different)
