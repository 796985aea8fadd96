"""Tasks of odd sizes, small enough to read."""

from zoo.data.synthetic import Copying, Induction, MultiQueryRecall, Needle, SelectiveCopying, SyntheticTask

TASKS: dict[str, SyntheticTask] = {
    task.name: task
    for task in (
        MultiQueryRecall(length=27, shorter_lengths=(19,), vocab_size=23, num_pairs=(1, 3, 5), validation_rows=11),
        Copying(length=21, shorter_lengths=(7, 12), vocab_size=17, validation_rows=11),
        Induction(length=29, shorter_lengths=(11,), vocab_size=13, num_repeats=3, validation_rows=11),
        Needle(length=26, shorter_lengths=(13,), vocab_size=19, passkey_tokens=3, depth=(), validation_rows=11),
        SelectiveCopying(length=25, shorter_lengths=(14,), vocab_size=15, num_symbols=4, validation_rows=11),
    )
}
