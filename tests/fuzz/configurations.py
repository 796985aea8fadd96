"""Configurations: mappings of every section, YAML of variants, calibrations, and settings of generation."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.hostile import TEXTS, as_json, changed, damaged, similar, value
from tests.fuzz.subject import Subject
from tests.zoo.checkpoints.saved import TOKENIZER, small_model
from zoo.attention import variant_from_mapping
from zoo.attention.calibration import Calibration, Measurement, Provenance, read_calibration
from zoo.attention.catalog import attention_names, expand, variant_mapping
from zoo.config import from_mapping, to_mapping
from zoo.config.files import parse_yaml
from zoo.data import data_source_from_mapping, tokenizer_config_from_mapping
from zoo.generation import GenerationConfig, stream_text
from zoo.models import build_model, model_config_from_mapping
from zoo.training import TrainingConfig, optimizer_config_from_mapping

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


_CALIBRATION = Calibration(
    provenance=Provenance(
        device="x", backend="cpu", blas="x", mlx="1", attention_zoo="1", commit=None, recorded_at="2026-01-01T00:00:00"
    ),
    measurements=tuple(
        Measurement(
            mechanism="softmax",
            parameters={},
            implementation=implementation,
            phase="forward",
            batch_size=1,
            num_heads=2,
            length=length,
            median_seconds=0.1,
        )
        for implementation in ("fused", "manual")
        for length in (64, 256)
    ),
)


def shipped(group: str) -> list[dict[str, Any]]:
    """The plain mappings of a folder of shipped YAMLs, interpolations and packages aside."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((CONFIGS / group).glob("*.yaml"))]
    return [each for each in found if isinstance(each, dict)]


class Sections(Subject):
    """Sections of a configuration, each field of which may hold anything."""

    name = "sections"
    share = 6.0

    def attempt(self, rng: random.Random, folder: Path) -> None:
        group = rng.choice(("model", "optimizer", "training", "data", "tokenizer", "attention"))
        mapping = changed(rng, rng.choice(shipped(group)))
        if not isinstance(mapping, dict):
            return
        if group == "model":
            attention = variant_mapping(rng.choice(attention_names()))
            config = model_config_from_mapping({**mapping, "attention": attention}, tokenizer_vocab_size=300)
            if _is_small(config):
                build_model(config)
        elif group == "optimizer":
            optimizer_config_from_mapping(mapping)
        elif group == "training":
            from_mapping(TrainingConfig, mapping, path="training")
        elif group == "data":
            data_source_from_mapping({key: item for key, item in mapping.items() if key != "defaults"})
        elif group == "tokenizer":
            tokenizer_config_from_mapping(mapping)
        else:
            chosen = variant_from_mapping(expand({"name": "x", **mapping}))
            small_model(chosen.as_mapping())


class VariantFile(Subject):
    """YAML of a variant, as text."""

    name = "variant_file"
    share = 2.0

    def attempt(self, rng: random.Random, folder: Path) -> None:
        path = rng.choice(sorted((CONFIGS / "attention").glob("*.yaml")))
        text = damaged(rng, path.read_bytes()).decode("utf-8", errors="surrogateescape")
        if rng.random() < 0.3:
            text = yaml.safe_dump({"mechanism": "sliding_window", "window_size": rng.choice(TEXTS[:60])})
        content = parse_yaml(text, where=f"attention: {path.name}")
        if isinstance(content, dict):
            small_model(variant_from_mapping(expand({"name": "x", **content})).as_mapping())


class CalibrationFile(Subject):
    """What adaptive attention chooses by."""

    name = "calibration"
    share = 0.7

    def attempt(self, rng: random.Random, folder: Path) -> None:
        plain = to_mapping(_CALIBRATION)
        content = as_json(rng, changed(rng, plain))
        path = folder / "calibration.json"
        path.write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
        read_calibration(path)


class Generation(Subject):
    """Settings of sampling, on a real model."""

    name = "generation"
    share = 1.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.model = small_model(positions="rotary").eval()
        self.usual = GenerationConfig()

    def attempt(self, rng: random.Random, folder: Path) -> None:
        fields = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "repetition_context_size", "stop")
        mapping: dict[str, Any] = {"max_tokens": 3, "temperature": rng.choice((0, 0.8))}
        for field in rng.sample((*fields, "seed", "prefill_step_size", "max_tokens"), 2):
            mapping[field] = (
                similar(rng, mapping.get(field, vars(self.usual)[field])) if rng.random() < 0.8 else value(rng)
            )
        if mapping["max_tokens"] is None or (isinstance(mapping["max_tokens"], int) and mapping["max_tokens"] > 10):
            mapping["max_tokens"] = 5
        config = from_mapping(GenerationConfig, mapping, path="generate")
        pieces = list(stream_text(self.model, TOKENIZER, rng.choice(("a", "def f", "\u2581 é")), config))
        json.dumps([str(piece) for piece in pieces])
        prompt = rng.choice(TEXTS)
        if len(prompt) < 1000:
            list(stream_text(self.model, TOKENIZER, prompt, GenerationConfig(max_tokens=1)))


def _is_small(config: Any) -> bool:
    """Whether a model may be built here; larger ones are for the price that commands ask first."""
    sizes = (config.num_layers, config.hidden_size, config.intermediate_size, config.vocab_size, config.max_seq_len)
    heads = (config.num_heads, config.head_dim or 1)
    return max(size or 1 for size in (*sizes, *heads)) <= 2048 and config.num_layers <= 12
