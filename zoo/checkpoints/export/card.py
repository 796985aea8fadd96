"""The card of an exported model: what it is, what was done to it, what that did, and how it is used."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.attention import VariantConfig
from zoo.attention.registry import external_module
from zoo.checkpoints.export.layout import MODEL_FILE, Layout
from zoo.config import UserError, to_mapping
from zoo.config.files import parse_yaml, read_text
from zoo.models import BertConfig, ModelConfig
from zoo.runtime.hub_reference import HubReference
from zoo.runtime.versions import package_version

CARD = "README.md"
# Of a source's card; the rest may not be true of what became of it.
_KEPT = ("license", "license_name", "license_link", "language")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """Where a model comes from and what was done to it.

    Attributes:
        checkpoint: As it was named.
        adapters: What was put into the weights, or None.
        surgery: What exchanging the attention did, or None.
        quantization: How matrices were quantized and what that did, or None.
        text: What both were measured on, as "of …".
    """

    checkpoint: str
    adapters: str | None = None
    surgery: Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None
    text: str = ""


def model_card(config: ModelConfig, layout: Layout, story: Story, *, name: str, source: Path) -> str:
    """The text of a card.

    Args:
        config: Of the model.
        layout: How it was written.
        story: Where it comes from.
        name: Of the folder.
        source: What was read, whose card says under which license.
    """
    head = yaml.safe_dump(_front(layout, story, source), sort_keys=False, allow_unicode=True)
    body = "\n".join(_body(config, layout, story, name))
    return f"---\n{head}---\n\n{body}\n"


def _front(layout: Layout, story: Story, source: Path) -> dict[str, Any]:
    """What the Hub reads. Where nobody has said a license, there is none."""
    front = {key: value for key, value in _said(source).items() if key in _KEPT}
    front["library_name"] = "transformers" if layout.in_transformers else "mlx"
    if "BertFor" not in str(layout.config["architectures"]):
        front["pipeline_tag"] = "text-generation"
    reference = None if Path(story.checkpoint).exists() else HubReference.parse(story.checkpoint)
    if reference is not None and "/" in reference.name:
        front["base_model"] = reference.name
    front["tags"] = ["mlx", "attention-zoo"]
    return front


def _said(source: Path) -> dict[str, Any]:
    """The front matter of a folder's card; nothing of one that cannot be read, which no model hangs on."""
    path = source / CARD
    if not path.is_file():
        return {}
    try:
        _, front, _ = read_text(path, what="card").split("---\n", 2)
        found = parse_yaml(front, where=f"card: {path}")
    except (UserError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _body(config: ModelConfig, layout: Layout, story: Story, name: str) -> Iterator[str]:
    yield f"# {name}\n"
    grouped = f", {layout.config['num_key_value_heads']} of keys and values" if config.family == "llama" else ""
    yield (
        f"A {config.family} of {config.num_layers} layers, width {config.hidden_size}, {config.num_heads} heads"
        f"{grouped}, and {config.vocab_size:,} tokens; exported by Attention Zoo {package_version('attention-zoo')}.\n"
    )
    yield "## Attention\n"
    for variant in config.attention.variants():
        yield f"- `{variant.name}`: {_described(variant)}"
    yield "\n## What was done\n"
    yield f"- Read from `{Path(story.checkpoint).name if Path(story.checkpoint).exists() else story.checkpoint}`."
    if story.adapters is not None:
        yield f"- The adapters `{Path(story.adapters).name}` were put into the weights."
    if story.surgery is not None:
        which = ", ".join(map(str, story.surgery["layers"]))
        yield f"- The attention of layers {which} became `{story.surgery['attention']}`."
    if story.quantization is not None:
        about = story.quantization
        yield (
            f"- {about['matrices']} matrices were quantized: {about['mode']}, {about['bits']} bits, groups of"
            f" {about['group_size']}."
        )
    yield from _measured(story)
    yield from _use(config, layout)


def _described(variant: VariantConfig) -> str:
    """The first line of what a mechanism says of itself, and its parameters."""
    external = external_module(variant.mechanism)
    module = f"zoo.attention.variants.{variant.mechanism}" if external is None else external[0]
    said = (inspect.getdoc(importlib.import_module(module)) or variant.mechanism).splitlines()[0]
    parameters = {key: value for key, value in to_mapping(variant.parameters).items() if value is not None}
    shown = ", ".join(f"{key} = {value}" for key, value in parameters.items())
    return f"{said.rstrip('.')}. {f'({shown})' if shown else ''}".rstrip()


def _measured(story: Story) -> Iterator[str]:
    rows = [
        (what, about["damage"])
        for what, about in (("exchanged attention", story.surgery), ("quantization", story.quantization))
        if about is not None and "damage" in about
    ]
    if not rows:
        return
    yield f"\n## What that did\n\nOn {round(rows[0][1]['tokens']):,} tokens of held-out text {story.text}:\n"
    yield "| change | bits per byte before | after | KL divergence, nats per token | same first guess |"
    yield "|---|---|---|---|---|"
    for what, damage in rows:
        before, after = (damage[f"bits_per_byte_{when}"] for when in ("before", "after"))
        bits = " | ".join("-" if each is None else f"{each:.4f}" for each in (before, after))
        yield f"| {what} | {bits} | {damage['kl_nats_per_token']:.4f} | {damage['top1_agreement']:.1%} |"


def _use(config: ModelConfig, layout: Layout) -> Iterator[str]:
    yield "\n## Use\n"
    if isinstance(config, BertConfig):
        yield f"`transformers.{layout.config['architectures'][0]}.from_pretrained` reads the folder."
        return
    trust = " --trust-remote-code" if layout.has_model_file else ""
    yield f'```bash\nmlx_lm.generate --model FOLDER{trust} --prompt "…"\n```\n'
    if layout.has_model_file:
        yield (
            f"mlx-lm has no code of its own for this model. `{MODEL_FILE}` computes it: the modules of Attention Zoo in"
            " one file, which mlx-lm runs if it is trusted. It needs mlx, mlx-lm and numpy.\n"
        )
    if layout.in_transformers:
        yield f"`transformers.{layout.config['architectures'][0]}.from_pretrained` reads the folder too."
    elif "quantization" in layout.config:
        yield "transformers does not read MLX's quantized weights."
    else:
        yield "transformers has no such model."
    yield "\nIn Attention Zoo: `zoo.load_model(FOLDER)`, which runs none of the folder's code."
