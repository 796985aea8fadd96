"""Models in Hugging Face's layout as strangers make them: one file of a tiny reference changed."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from tests.fuzz.checkpoints import changed_arrays
from tests.fuzz.hostile import as_json, changed, damaged, value
from tests.fuzz.subject import Subject
from tests.zoo.checkpoints.huggingface.references import NAMES, model_folder
from zoo.checkpoints import load_checkpoint

# Keys that decide much and that not every config has.
_KEYS = (
    *("rope_parameters", "rope_scaling", "rope_theta", "original_max_position_embeddings", "partial_rotary_factor"),
    *("quantization", "quantization_config", "layer_types", "use_sliding_window", "sliding_window", "head_dim"),
    *("num_labels", "id2label", "eos_token_id", "auto_map", "format", "is_decoder", "n_inner"),
)
_SCALINGS: tuple[dict[str, Any], ...] = (
    {"rope_type": "yarn", "factor": 1e6, "rope_theta": 1, "original_max_position_embeddings": 2},
    {"rope_type": "dynamic", "factor": 1e-6, "rope_theta": 1e15},
    {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 1e6},
    {"group_size": 64, "bits": 8},
    {"group_size": 16, "bits": 4, "mode": "nvfp4"},
)


class Folder(Subject):
    """Files of a model that is loaded and asked, with and without a cache."""

    name = "folder"
    share = 3.0

    def attempt(self, rng: random.Random, folder: Path) -> None:
        place = Path(shutil.copytree(model_folder(rng.choice(NAMES)), folder / "model"))
        file = rng.choice([place / "config.json", *sorted(place.iterdir())])
        before = file.read_bytes()
        if file.suffix == ".safetensors":
            after = changed_arrays(rng, before)
        elif file.suffix == ".json" and rng.random() < 0.8:
            content = json.loads(before)
            if file.name == "config.json" and rng.random() < 0.5:
                content[rng.choice(_KEYS)] = dict(rng.choice(_SCALINGS)) if rng.random() < 0.3 else value(rng)
            after = as_json(rng, changed(rng, content) if rng.random() < 0.7 else content)
        else:
            after = damaged(rng, before)
        file.write_bytes(after)
        model: Any = load_checkpoint(place).model
        tokens_BL = mx.array([[1, 2, 3, 4, 5]])
        mx.eval(model.hidden(tokens_BL))
        if model.config.causal:
            cache = model.make_cache()
            model(tokens_BL, cache=cache)
            mx.eval(model(tokens_BL[:, :1], cache=cache))
