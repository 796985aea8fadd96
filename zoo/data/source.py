"""What a model learns from: a corpus of text, or a synthetic task with tokens of its own."""

from collections.abc import Mapping
from typing import Any

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.data.corpora import CORPORA, DataConfig, data_config_from_mapping
from zoo.data.examples import ExamplesConfig
from zoo.data.synthetic import SYNTHETIC_TASKS, SyntheticTask, synthetic_task_from_mapping

DataSource = DataConfig | SyntheticTask
# What a checkpoint's description of its data says beside the fields of the source: digests of what came of them.
DERIVED_KEYS = frozenset({"fingerprint", "identity", "tokenizer"})


def data_source_from_mapping(mapping: Mapping[str, Any], *, path: str = "data") -> DataSource:
    """Builds what `configs/data/*.yaml` or a checkpoint describes.

    Args:
        mapping: `corpus`, which names a corpus or a task, and its fields.
        path: Config path for messages.

    Raises:
        UserError: On an unknown corpus, key or value.
    """
    corpus = mapping.get("corpus")
    if isinstance(corpus, str) and corpus in SYNTHETIC_TASKS:
        return synthetic_task_from_mapping(mapping, path=path)
    if isinstance(corpus, str) and corpus in CORPORA:
        return data_config_from_mapping(mapping, path=path)
    if corpus == ExamplesConfig.corpus:
        raise UserError(f"{path}: corpus must be text or a synthetic task; examples are for scripts/finetune.py")
    choices = ", ".join([*CORPORA, *SYNTHETIC_TASKS])
    raise UserError(f"{path}: corpus must be a known one; got {shortened(corpus)} (choices: {choices})")
