"""What a mechanism cannot see, it can neither recall nor write, and the scores show where."""

import types

import pytest

import eval.quality.tasks.recall
from eval.quality import Score
from eval.quality.tasks.recall import generated_needle, generated_recall, recall
from tests.eval.quality.models import Recaller, random_model, reads_text, recalls
from zoo.config import UserError
from zoo.data.synthetic import SYNTHETIC_TASKS, MultiQueryRecall, Needle

NEEDLE = Needle(length=41, shorter_lengths=(21,), passkey_tokens=3)


@pytest.mark.parametrize(("window", "leaks"), [(1000, False), (15, False), (1, False), (1, True)])
def test_a_needle_is_found_exactly_where_it_is_in_sight_or_leaks(window: int, leaks: bool) -> None:
    """At depth d of n places the needle's mark stands (1 - d) n + K + 1 tokens before the question's.

    Whoever reads the next token answers all of a passkey that it cannot see, but for its last token.
    """
    _, *parts = recall(recalls(Recaller(NEEDLE.vocab_size, window_size=window, leaks=leaks), NEEDLE))
    depths = (0, 0.25, 0.5, 0.75, 1)
    assert {(score.length, score.depth) for score in parts} == {
        (length, depth) for length in (21, 41) for depth in depths
    }
    size = NEEDLE.passkey_tokens
    for score in parts:
        last = score.length - 2 * (size + 1) + 1
        in_sight = last - int(score.depth * last + 0.5) + size + 1 < window
        assert score.value == pytest.approx((size - 1) / size if leaks else float(in_sight)), score


@pytest.mark.parametrize("name", sorted(SYNTHETIC_TASKS))
def test_every_task_is_asked_at_every_setting_and_the_first_score_is_over_all(name) -> None:
    task = SYNTHETIC_TASKS[name]()
    scores = recall(recalls(Recaller(task.vocab_size, window_size=1000), task, batch_size=2, max_batches=1))
    assert len(scores) == 1 + len(task.settings())
    asked = [{axis: getattr(score, axis) for axis in task.axes} for score in scores[1:]]
    assert asked == task.settings()
    assert scores[0].count == sum(score.count for score in scores[1:])
    right = sum(score.value * score.count for score in scores[1:])
    assert scores[0].value == pytest.approx(right / scores[0].count)


def test_the_same_rows_at_several_settings_do_not_make_surer() -> None:
    """With this window some rows succeed: asking the same rows at one more setting is no new evidence."""
    tasks = (MultiQueryRecall(num_pairs=(4,)), MultiQueryRecall(num_pairs=(4, 4)))
    once, twice = (recall(recalls(Recaller(256, window_size=9), task, batch_size=40))[0] for task in tasks)
    assert 0.1 < once.value < 0.9
    assert twice.value == once.value
    assert twice.standard_error == pytest.approx(once.standard_error)
    assert once.standard_error > 0


def test_lengths_beyond_learned_positions_are_skipped_with_the_reason() -> None:
    def asked(limit: int) -> list[Score]:
        return recall(recalls(Recaller(NEEDLE.vocab_size, window_size=1000, position_limit=limit), NEEDLE))

    _, *parts = asked(30)
    assert all((score.skipped is None) == (score.length == 21) for score in parts)
    assert "max_seq_len 30, before 41 tokens" in parts[-1].skipped
    with pytest.raises(UserError, match="no setting that fits the model"):
        asked(7)


def knowing(sight):
    """Stands for a model that finds what its prompt's last line begins, among so many characters."""

    def found(prompt):
        before, _, opening = prompt.rpartition("\n")
        return types.SimpleNamespace(text=before[-sight:].partition(opening)[2][:6])

    return lambda model, tokenizer, prompts, config: list(map(found, prompts))


def test_recall_counts_what_was_written_by_number_of_pairs(data, monkeypatch):
    own = generated_recall(reads_text(random_model(max_seq_len=200), data, max_batches=1))
    assert [score.value for score in own] == [0.0] * 4, "an untrained model writes its answers itself"
    monkeypatch.setattr(eval.quality.tasks.recall, "generate_batch", knowing(sight=12))
    whole, *parts = generated_recall(reads_text(random_model(), data))
    assert [(score.num_pairs, score.count) for score in (whole, *parts)] == [(None, 36), (2, 12), (4, 12), (8, 12)]
    # The last pair is all that it sees, and half of the questions of two pairs ask for that.
    assert parts[2].value < parts[0].value < 1
    assert whole.value == pytest.approx(sum(part.value for part in parts) / 3)


def test_a_needle_out_of_sight_is_not_found(data, monkeypatch):
    monkeypatch.setattr(eval.quality.tasks.recall, "generate_batch", knowing(sight=190))
    whole, *parts = generated_needle(reads_text(random_model(max_seq_len=400), data, sequence_length=300))
    assert [score.depth for score in parts] == [0.1, 0.5, 0.9]
    # Lines differ in length, and so does what lies behind a depth.
    first, middle, last = (score.value for score in parts)
    assert first < 0.2 < 0.8 < middle <= last == 1
    assert whole.value == pytest.approx((first + middle + last) / 3)
    (skipped,) = generated_needle(reads_text(random_model(), data))
    assert "no room" in skipped.skipped
