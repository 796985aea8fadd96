"""Questions in plain text: the answer stands in the prompt once, and only the answer itself is one."""

import pytest

from zoo.data.questions import needle_question, recall_question

TEXT = "import os\n\n\ndef first():\n    return 1\n\n\ndef second():\n    return 2\n"


@pytest.mark.parametrize("num_pairs", [1, 2, 8, 24])
def test_the_number_asked_for_is_the_one_that_belongs_to_the_name(num_pairs):
    asked = set()
    for number in range(20):
        question = recall_question(number, num_pairs=num_pairs, seed=5)
        *lines, last = question.prompt.split("\n")
        pairs = dict(line.split(" = ") for line in lines)
        assert len(lines) == len(pairs) == len(set(pairs.values())) == num_pairs
        assert pairs[last.removesuffix(" =")] == question.answer
        asked.add(list(pairs).index(last.removesuffix(" =")))
    assert len(asked) == min(num_pairs, len(asked)) > (1 if num_pairs > 1 else 0)


@pytest.mark.parametrize(("depth", "before"), [(0, 0), (0.5, 4), (1, 9)])
def test_the_sentence_stands_at_its_depth_in_an_unbroken_text(depth, before):
    question = needle_question(3, TEXT, depth=depth, seed=5)
    lines = question.prompt.split("\n")
    (place,) = [index for index, line in enumerate(lines) if line.endswith(f" {question.answer}.")]
    assert (place, lines[-1]) == (before, lines[place].removesuffix(f" {question.answer}."))
    assert "\n".join(lines[:place] + lines[place + 1 : -1]).rstrip() == TEXT.rstrip()


def test_questions_are_drawn_anew_for_each_number_and_again_for_an_equal_one():
    drawn = [recall_question(number, num_pairs=4, seed=seed) for number, seed in ((0, 1), (1, 1), (0, 2), (0, 1))]
    assert len({each.prompt for each in drawn}) == 3
    assert drawn[0] == drawn[3]


def test_only_the_answer_at_once_and_no_longer_number_is_right():
    question = recall_question(0, num_pairs=2, seed=0)
    right = ("{}", " {}.", "\n{}\nriver = 1")
    wrong = ("{}1", "1 {}", "", "is {}", "1{}")
    assert all(question.is_answered_by(text.format(question.answer)) for text in right)
    assert not any(question.is_answered_by(text.format(question.answer)) for text in wrong)
    assert not question.is_answered_by(question.answer[:2])
