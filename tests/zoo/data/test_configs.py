"""The YAML files of corpora, tasks and tokenizers: each has all fields, at their defaults."""

from pathlib import Path

import pytest
import yaml

import zoo
from zoo.config import from_mapping
from zoo.data import data_config_from_mapping, data_source_from_mapping, tokenizer_config_from_mapping
from zoo.data.corpora import CORPORA
from zoo.data.examples import ExamplesConfig
from zoo.data.synthetic import SYNTHETIC_TASKS
from zoo.data.tokenizers import KINDS

CONFIGS = Path(zoo.__file__).resolve().parents[1] / "configs"
# Has to be given, so that it has no default of use.
PATHS = {"text", "jsonl", "parquet", "hub", "pretrained", "examples"}


def read(group: str, name: str) -> dict[str, object]:
    mapping = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return mapping | {"path": "somewhere"} if name in PATHS else mapping


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_corpus_has_a_file_with_every_field_at_its_default(corpus):
    mapping = read("data", corpus)
    config = data_config_from_mapping(mapping)
    assert config.as_mapping() == mapping
    given = {"path": "somewhere"} if corpus in PATHS else {}
    assert config == data_config_from_mapping({"corpus": corpus, **given})


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_tokenizer_has_a_file_with_every_field_at_its_default(kind):
    mapping = read("tokenizer", kind)
    config = tokenizer_config_from_mapping(mapping)
    assert config.as_mapping() == mapping
    given = {"path": "somewhere"} if kind in PATHS else {}
    assert config == tokenizer_config_from_mapping({"kind": kind, **given})


@pytest.mark.parametrize("name", SYNTHETIC_TASKS)
def test_a_synthetic_task_has_a_file_with_every_field_at_its_default(name):
    mapping = read("data", name)["data"]
    task = data_source_from_mapping(mapping)
    assert task.as_mapping() == mapping
    assert task == SYNTHETIC_TASKS[name]()


def test_examples_have_a_file_with_every_field_at_its_default():
    mapping = read("data", ExamplesConfig.corpus)
    fields = {key: value for key, value in mapping.items() if key != "corpus"}
    config = from_mapping(ExamplesConfig, fields, path="data")
    assert config.as_mapping() == mapping
    assert config == ExamplesConfig(path="somewhere")


def test_there_is_no_file_without_a_kind():
    files = {path.stem for path in (CONFIGS / "data").glob("*.yaml")}
    assert files == {*CORPORA, *SYNTHETIC_TASKS, ExamplesConfig.corpus}
    assert {path.stem for path in (CONFIGS / "tokenizer").glob("*.yaml")} == set(KINDS)
