"""Questions in plain text whose answer stands earlier in the same text, to be answered by writing it.

    river = 482        recall: which number belongs to a name, among several
    stone = 915
    river =                                                          ->  482

    …real text… The secret number of river is 482. …real text…       needle: one sentence in text about something else
    The secret number of river is                                    ->  482

The needle is the passkey retrieval of Mohtashami and Jaggi, "Landmark Attention", https://arxiv.org/abs/2305.16300.
Models of prose and of code can answer both, for the question repeats the words before the answer.
"""

import dataclasses
import re

import numpy as np

# English, short, in no need of order; a tokenizer of any language has them in a few tokens.
_NAMES = (
    *("river", "stone", "apple", "table", "cloud", "horse", "green", "light", "paper", "house", "music", "north"),
    *("water", "glass", "tower", "field", "sugar", "chair", "ocean", "metal", "lemon", "tiger", "plant", "wheel"),
)
# Three digits: by chance a number is right once in so many times.
NUM_ANSWERS = 900
_LEAST = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A text that ends before its answer.

    Attributes:
        prompt: The text.
        answer: What follows, without the space before it.
    """

    prompt: str
    answer: str

    def is_answered_by(self, text: str) -> bool:
        """Whether a continuation begins with the answer, and with no longer number."""
        return re.match(rf"\s*{self.answer}(?!\d)", text) is not None


def recall_question(number: int, *, num_pairs: int, seed: int) -> Question:
    """Names and their numbers, then one of the names again.

    Args:
        number: Of the question, for every one its own names and numbers.
        num_pairs: At most as many as there are names, 24.
        seed: Chooses all of them.
    """
    generator = np.random.default_rng((seed, num_pairs, number))
    names = generator.permutation(_NAMES)[:num_pairs]
    numbers = _LEAST + generator.choice(NUM_ANSWERS, num_pairs, replace=False)
    asked = int(generator.integers(num_pairs))
    lines = [f"{name} = {value}" for name, value in zip(names, numbers, strict=True)]
    return Question(prompt="\n".join([*lines, f"{names[asked]} ="]), answer=str(numbers[asked]))


def needle_question(number: int, text: str, *, depth: float, seed: int) -> Question:
    """A sentence within a text, then its beginning again.

    Args:
        number: Of the question.
        text: About anything else.
        depth: Where the sentence stands: 0 at the beginning, 1 at the end.
        seed: Chooses name and number.
    """
    generator = np.random.default_rng((seed, number))
    opening = f"The secret number of {generator.choice(_NAMES)} is"
    answer = str(_LEAST + generator.integers(NUM_ANSWERS))
    lines = text.splitlines(keepends=True)
    # Between two lines, so that no word is torn.
    place = round(depth * len(lines))
    before, after = "".join(lines[:place]), "".join(lines[place:])
    gap = "" if before.endswith("\n") or not before else "\n"
    return Question(prompt=f"{before}{gap}{opening} {answer}.\n{after.rstrip()}\n{opening}", answer=answer)
