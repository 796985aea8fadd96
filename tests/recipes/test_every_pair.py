"""Every model × attention pair builds, or is refused with its reason; every shipped YAML composes."""

import itertools
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from zoo.attention import VariantConfig, variant_from_mapping
from zoo.attention.catalog import attention_names, variant, variant_mapping
from zoo.config import UserError
from zoo.models import build_model, model_config_from_mapping

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in CONFIGS.iterdir() if folder.is_dir()
}
# Only fine-tuning distils.
DISTILLATIONS = GROUPS.pop("distillation")
TOP_LEVEL = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def _refusal(model: str, attention: str, num_heads: int) -> str | None:
    """What the declared capabilities say about a pair: the word its refusal must contain, or None if it must build."""
    shared = [getattr(part.parameters, "queries_per_kv_head", None) or 1 for part in variant(attention).variants()]
    if any(num_heads % count for count in shared):
        return "must divide the model's"
    causal = not model.startswith("bert")
    able = [part.capabilities for part in variant(attention).variants()]
    if causal and not all(each.causal for each in able):
        return "must not see the future"
    if not causal and not all(each.bidirectional for each in able):
        return "must be used in a causal model"
    return None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("attention", attention_names())
def test_every_pair_builds_or_is_refused_with_its_reason(model: str, attention: str) -> None:
    values = yaml.safe_load((CONFIGS / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    values["vocab_size"] = values["vocab_size"] or 1000
    config = model_config_from_mapping({**values, "attention": variant_mapping(attention)})
    reason = _refusal(model, attention, values["num_heads"])
    if reason is None:
        built = build_model(config)
        assert len(built.layers) == values["num_layers"]
        assert built.num_parameters() > 0
    else:
        with pytest.raises(UserError, match=reason):
            build_model(config)


def _compositions() -> list[tuple[str, list[str]]]:
    """Every choice of every group once, as many as go together at a time: Hydra takes as long for one as for all."""
    columns = [[f"{group}={name}" for name in names] for group, names in sorted(GROUPS.items())]
    rows = [[choice for choice in row if choice] for row in itertools.zip_longest(*columns)]
    return [("train", row) for row in rows] + [("finetune", [f"distillation={name}"]) for name in DISTILLATIONS]


@pytest.mark.parametrize(("recipe", "choices"), _compositions(), ids=str)
def test_every_choice_composes(recipe: str, choices: list[str]) -> None:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = compose(config_name=recipe, overrides=choices)
    for choice in choices:
        assert config[choice.partition("=")[0]], f"{choice} must hold values"


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_every_recipe_composes(name: str) -> None:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        compose(config_name=name)


@pytest.mark.parametrize("name", attention_names())
def test_every_variant_survives_its_mapping(name: str) -> None:
    chosen = variant(name)
    assert variant_from_mapping(chosen.as_mapping()) == chosen
    assert isinstance(chosen, VariantConfig) or len(chosen.variants()) > 1
