"""Batches: pure functions of seed and step, every token counted once, and documents kept apart."""

from pathlib import Path

import numpy as np
import pytest

from tests.zoo.data.test_dataset import stories
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from zoo.config import UserError
from zoo.data import Batch, CausalLoader, Loader, MaskedTokenLoader, ProcessShare, TokenCorpus, load_tokenizer, prepare
from zoo.data.tokenizers import BytesConfig

Kind = type[CausalLoader] | type[MaskedTokenLoader]
LOADERS: list[Kind] = [CausalLoader, MaskedTokenLoader]
PACKINGS = ["stream", "documents"]
EOS, PAD, MASK = 256, 257, 258
LENGTH = 13


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    # From one byte to several rows, and one that fills a row exactly.
    texts = [f"{index:03d}" + "äbc" * (index % 17) for index in range(83)] + ["x", "y" * (LENGTH - 1), "z" * LENGTH]
    return prepare(stories(tmp_path_factory.mktemp("corpus"), texts, validation_fraction=0.3), BytesConfig())


def load(kind: Kind, corpus: TokenCorpus, split: str = "train", **settings: object) -> Loader:
    chosen = {"batch_size": 6, "sequence_length": LENGTH, "seed": 3, **settings}
    return kind(corpus.train if split == "train" else corpus.validation, **chosen)


def arrays(batch: Batch) -> list[np.ndarray | None]:
    return [batch.inputs_BL, batch.targets_BL, batch.weights_BL, batch.segments_BL, batch.lengths_B]


def assert_same(one: Batch, other: Batch) -> None:
    assert one.identity == other.identity
    for left, right in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", LOADERS)
def test_a_batch_depends_on_seed_and_step_alone(corpus, kind, packing):
    settings = {"packing": packing, "mask_documents": True}
    used = load(kind, corpus, **settings)
    for step in (7, 0, 40):
        used.batch(step)
    assert_same(used.batch(9), load(kind, corpus, **settings).batch(9))
    with pytest.raises(AssertionError):
        assert_same(used.batch(9), used.batch(10))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(
            used.batch(9).inputs_BL, load(kind, corpus, seed=4, **settings).batch(9).inputs_BL
        )


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", LOADERS)
def test_processes_share_the_batch_of_one(corpus, kind, packing):
    whole, *parts = (
        load(kind, corpus, packing=packing, mask_documents=True, share=ProcessShare(rank=rank, world_size=size))
        for rank, size in [(0, 1), (0, 3), (1, 3), (2, 3)]
    )
    batches = [(whole.batch(50), [part.batch(50) for part in parts])]
    shares_of_each = zip(*(part.validation_batches(2) for part in parts), strict=True)
    batches += zip(whole.validation_batches(2), map(list, shares_of_each), strict=True)
    assert len(batches) == 3
    for one, shares in batches:
        for expected, *found in zip(arrays(one), *(arrays(share) for share in shares), strict=True):
            if expected is not None:
                np.testing.assert_array_equal(expected, np.concatenate(found))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", LOADERS)
def test_each_epoch_visits_every_row_once_and_in_another_order(corpus, kind, packing):
    loader = load(kind, corpus, packing=packing, batch_size=1)
    identities = [loader.batch(step).identity.partition("rows ")[2] for step in range(400)]
    num_rows = len(set(identities))
    epochs = [identities[start : start + num_rows] for start in range(0, 400 - num_rows + 1, num_rows)]
    assert len(epochs) >= 2
    assert all(len(set(epoch)) == num_rows for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_may_hold_the_end_of_one_epoch_and_the_start_of_the_next(corpus):
    single, batched = load(CausalLoader, corpus, batch_size=1), load(CausalLoader, corpus, batch_size=7)
    singles = [single.batch(step).targets_BL for step in range(7 * 40)]
    for step in range(40):
        np.testing.assert_array_equal(batched.batch(step).targets_BL, np.concatenate(singles[7 * step : 7 * step + 7]))


def test_windows_lie_next_to_each_other_and_predict_the_next_token(corpus):
    tokens_T = corpus.train.tokens_T.astype(np.int64)
    num_rows = (len(tokens_T) - 1) // LENGTH
    loader = load(CausalLoader, corpus, batch_size=1)
    batches = [loader.batch(step) for step in range(num_rows)]
    inputs = tokens_T[: num_rows * LENGTH].reshape(num_rows, LENGTH)
    targets = tokens_T[1 : num_rows * LENGTH + 1].reshape(num_rows, LENGTH)
    found = sorted((batch.inputs_BL[0].tolist(), batch.targets_BL[0].tolist()) for batch in batches)
    assert found == sorted(zip(inputs.tolist(), targets.tolist(), strict=True))
    assert all((batch.weights_BL == 1).all() and batch.lengths_B is None for batch in batches)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("batch_size", [1, 6, 1000])
def test_validation_counts_every_token_of_every_document_once(corpus, packing, batch_size):
    split = corpus.validation
    batches = list(
        load(CausalLoader, corpus, "validation", packing=packing, batch_size=batch_size).validation_batches()
    )
    counted = np.concatenate([batch.targets_BL[batch.weights_BL > 0] for batch in batches])
    assert sorted(counted) == sorted(split.tokens_T[1:])
    lengths_V = corpus.tokenizer.token_byte_lengths()
    num_bytes = sum(float((lengths_V[batch.targets_BL] * batch.weights_BL).sum()) for batch in batches)
    texts = [
        corpus.tokenizer.decode(split.tokens_T[start:end].tolist())
        for start, end in zip([1, *split.document_ends_N[:-1]], split.document_ends_N, strict=True)
    ]
    assert num_bytes == sum(len(text.encode()) for text in texts)
    assert {batch.inputs_BL.shape for batch in batches} == {(batch_size, LENGTH)}
    assert all(set(np.unique(batch.weights_BL)) <= {0.0, 1.0} for batch in batches)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", LOADERS)
def test_validation_is_the_same_for_every_seed_and_each_time(corpus, kind, packing):
    first = load(kind, corpus, "validation", packing=packing)
    other = load(kind, corpus, "validation", packing=packing, seed=99)
    other.batch(5)
    for one, again in zip(first.validation_batches(), other.validation_batches(), strict=True):
        assert_same(one, again)
    limited = list(first.validation_batches(2))
    assert len(limited) == 2
    assert_same(limited[1], list(first.validation_batches())[1])
    # A limit that a checkpoint names can be of any size.
    assert len(list(first.validation_batches(10**30))) == len(list(first.validation_batches()))


def test_the_first_validation_batches_come_from_all_over_the_split(corpus):
    (batch,) = load(CausalLoader, corpus, "validation").validation_batches(1)
    rows = sorted(map(int, batch.identity.partition("rows ")[2].partition(" of")[0].split(", ")))
    assert rows[0] < 0.4 * rows[-1]
    assert rows != list(range(rows[0], rows[0] + 6))


@pytest.mark.parametrize("kind", LOADERS)
def test_segments_are_the_documents_and_an_end_token_starts_the_next(corpus, kind):
    split = corpus.train
    loader = load(kind, corpus, mask_documents=True, batch_size=1)
    for step in range(30):
        batch = loader.batch(step)
        row = int(batch.identity.partition("rows ")[2].split(" ")[0])
        # Where a token is predicted, it belongs to the document of the token that it predicts.
        places = range(row * LENGTH + 1, (row + 1) * LENGTH + 1)
        documents = np.array([split.document_at(place) for place in places])
        assert batch.segments_BL is not None
        segments = batch.segments_BL[0]
        assert segments.dtype == np.int32
        assert (np.diff(segments) == np.diff(documents)).all()
        assert (segments >= 0).all()
    assert load(kind, corpus).batch(0).segments_BL is None


def test_a_row_of_a_document_begins_with_an_end_token_or_goes_on_where_the_last_row_stopped(corpus):
    loader = load(CausalLoader, corpus, packing="documents", mask_documents=True, batch_size=1)
    batches = {batch.identity.partition("rows ")[2].split(" ")[0]: batch for batch in map(loader.batch, range(300))}
    texts = []
    for row in sorted(batches, key=int):
        batch = batches[row]
        assert batch.segments_BL is None
        assert batch.lengths_B is not None
        count = int(batch.lengths_B[0])
        assert (batch.weights_BL[0] == (np.arange(LENGTH) < count)).all()
        assert (batch.inputs_BL[0, count:] == PAD).all()
        assert (batch.targets_BL[0, count:] == PAD).all()
        assert (batch.inputs_BL[0, 1:count] == batch.targets_BL[0, : count - 1]).all()
        if batch.inputs_BL[0, 0] == EOS:
            texts.append([])
        else:
            assert texts[-1][-1] == batch.inputs_BL[0, 0]
        texts[-1] += batch.targets_BL[0, :count].tolist()
    assert all(text.index(EOS) == len(text) - 1 for text in texts)
    assert [token for text in texts for token in text] == corpus.train.tokens_T[1:].tolist()


def test_rows_that_fill_up_the_last_validation_batch_are_finite_but_count_nothing(corpus):
    for packing in PACKINGS:
        *_, last = load(CausalLoader, corpus, "validation", packing=packing, batch_size=1000).validation_batches()
        empty = last.weights_BL.sum(axis=1) == 0
        assert empty.any()
        assert last.lengths_B is None or (last.lengths_B >= 1).all()


@pytest.mark.parametrize("packing", PACKINGS)
def test_fifteen_percent_of_each_rows_tokens_are_hidden_and_no_special_one(corpus, packing):
    loader = load(MaskedTokenLoader, corpus, packing=packing, sequence_length=41)
    for step in range(40):
        batch = loader.batch(step)
        chosen, text = batch.weights_BL > 0, batch.targets_BL < EOS
        if batch.lengths_B is not None:
            text &= np.arange(41) < batch.lengths_B[:, None]
        assert not (chosen & ~text).any()
        counts = text.sum(axis=1)
        assert (chosen.sum(axis=1) == np.maximum(np.floor(0.15 * counts + 0.5), counts > 0)).all()
        assert (batch.inputs_BL == batch.targets_BL)[~chosen].all()
        assert set(batch.inputs_BL[chosen].tolist()) <= {MASK, *range(256)}


def test_of_the_hidden_tokens_eighty_percent_are_masked_and_ten_replaced(corpus):
    loader = load(MaskedTokenLoader, corpus, sequence_length=41, batch_size=30)
    inputs, targets = [], []
    for step in range(60):
        batch = loader.batch(step)
        inputs.append(batch.inputs_BL[batch.weights_BL > 0])
        targets.append(batch.targets_BL[batch.weights_BL > 0])
    hidden, truth = np.concatenate(inputs), np.concatenate(targets)
    # Five standard deviations of a binomial.
    allowed = 5 * (0.8 * 0.2 / len(hidden)) ** 0.5
    assert np.mean(hidden == MASK) == pytest.approx(0.8, abs=allowed)
    assert np.mean(hidden == truth) == pytest.approx(0.1 + 0.1 / 256, abs=allowed)
    replaced = hidden[(hidden != MASK) & (hidden != truth)]
    assert len(np.unique(replaced)) > 200, "random tokens come from the whole vocabulary"


def test_training_hides_other_tokens_when_a_row_comes_again(corpus):
    loader = load(MaskedTokenLoader, corpus, batch_size=1)
    seen: dict[str, list[bytes]] = {}
    for step in range(300):
        batch = loader.batch(step)
        seen.setdefault(batch.identity.partition("rows ")[2], []).append(batch.weights_BL.tobytes())
    again = [places for places in seen.values() if len(places) > 1]
    assert len(again) > 20
    assert np.mean([len(set(places)) > 1 for places in again]) > 0.8


def test_every_place_of_a_row_is_hidden_equally_often(corpus):
    loader = load(MaskedTokenLoader, corpus, batch_size=48)
    hidden_L, text_L = np.zeros(LENGTH), np.zeros(LENGTH)
    for step in range(80):
        batch = loader.batch(step)
        hidden_L += batch.weights_BL.sum(axis=0)
        text_L += (batch.targets_BL < EOS).sum(axis=0)
    assert (abs(hidden_L / text_L / (hidden_L.sum() / text_L.sum()) - 1) < 0.15).all()


def test_the_identity_names_step_seed_rows_and_sources(corpus):
    identity = load(CausalLoader, corpus, batch_size=6).batch(8).identity
    assert identity.startswith("step 8, seed 3: train rows ")
    assert ".jsonl:" in identity
    assert " of 13 tokens, beginning in " in identity
    assert identity.endswith(" more")
    assert "\n" not in identity
    (batch,) = load(CausalLoader, corpus, "validation").validation_batches(1)
    assert batch.identity.startswith("validation batch 0: validation rows ")


def test_arrays_have_the_types_that_the_model_takes(corpus):
    for kind in LOADERS:
        batch = load(kind, corpus, packing="documents").batch(0)
        assert batch.inputs_BL.dtype == batch.targets_BL.dtype == batch.lengths_B.dtype == np.int32
        assert batch.weights_BL.dtype == np.float32
        assert all(array is None or array.flags.c_contiguous for array in arrays(batch))


@pytest.mark.parametrize("kind", LOADERS)
def test_a_split_shorter_than_a_row_is_refused_for_training(tmp_path, kind):
    corpus = prepare(stories(tmp_path, ["abcd", "efgh"]), BytesConfig())
    for length in (5, 1):
        load(kind, corpus, sequence_length=length).batch(0)
    with pytest.raises(UserError, match=r"^data: the train split must hold .* row of 6 tokens; it has 5: choose"):
        load(kind, corpus, sequence_length=6).batch(0)


def test_a_split_shorter_than_a_row_can_still_be_validated_on_if_the_model_looks_back_only(tmp_path):
    corpus = prepare(stories(tmp_path, ["abcd", "efgh"]), BytesConfig())
    (batch,) = load(CausalLoader, corpus, "validation", sequence_length=9).validation_batches()
    assert batch.weights_BL.sum() == 5
    with pytest.raises(UserError, match="the validation split must hold at least one row of 9 tokens; it has 5"):
        next(load(MaskedTokenLoader, corpus, "validation", sequence_length=9).validation_batches())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a multiple of the 1 processes, at least 1; got 0"),
        ({"batch_size": 7, "share": ProcessShare(world_size=2)}, "batch_size must be a multiple of the 2 processes"),
        ({"sequence_length": 0}, "sequence_length must be at least 1; got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(corpus, settings, message):
    with pytest.raises(UserError, match=message):
        load(CausalLoader, corpus, **settings)
    with pytest.raises(UserError, match=r"rank must lie in \[0, 2\); got 2"):
        ProcessShare(rank=2, world_size=2)


def test_a_tokenizer_without_a_mask_token_is_refused_for_masked_tokens(tmp_path: Path):
    tokenizer = load_tokenizer(byte_level_checkpoint(tmp_path / "checkpoint"))
    corpus = prepare(stories(tmp_path / "in", ["ijkl"] + ["abcdefgh"] * 9), tokenizer)
    with pytest.raises(UserError, match="tokenizer must have a mask token"):
        load(MaskedTokenLoader, corpus)
    assert load(CausalLoader, corpus).batch(0).inputs_BL.shape == (6, LENGTH)
