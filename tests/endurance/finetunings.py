"""Short fine-tunings to be killed: they heal an exchanged attention in two stages, and save after every step."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

# Here, and not at its first use in each process that is forked.
import mlx_lm.tuner.utils  # noqa: F401

import recipes.finetune
from recipes.app import execute
from tests.endurance.trainings import without_figures
from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import History, save_checkpoint, verify_manifest
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping
from zoo.training import read_metrics

OPTIONS = (
    "attention=swa",
    "attention.window_size=5",
    "surgery.batches=1",
    "distillation.attention_steps=3",
    "distillation.loss=kl",
    "method=lora",
    "lora.rank=3",
    "lora.dropout=0.2",
    "optimizer.learning_rate=3e-3",
    "training.compile=false",
    "training.steps=6",
    "training.batch_size=3",
    "training.sequence_length=40",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=1",
    "training.log_every=1",
    "training.eval_every=2",
    "training.sample_tokens=2",
    "resume=auto",
)
MODEL = {"family": "llama", "vocab_size": 259, "num_layers": 2, "hidden_size": 32, "num_heads": 4, "max_seq_len": 64}


class Finetunings:
    """Of one checkpoint, on prompts with completions."""

    def __init__(self, folder: Path) -> None:
        """Writes the examples."""
        self.folder, self.base = folder, folder / "base"
        lines = [
            json.dumps({"prompt": "q" * (number % 9), "completion": "a" * (number % 5 + 1)}) for number in range(40)
        ]
        (folder / "examples.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def main(self, run: Path) -> int:
        """Fine-tunes, or goes on."""
        if not self.base.exists():
            # In the first process of all: MLX must compute nothing before processes are forked.
            mx.random.seed(1)
            model = build_model(model_config_from_mapping({**MODEL, "attention": variant_mapping("mha")}))
            save_checkpoint(self.base, model=model, tokenizer=BytesTokenizer())
        places = (f"data.path={self.folder / 'examples.jsonl'}", f"data.cache_dir={self.folder / 'cache'}")
        with without_figures():
            words = [f"checkpoint={self.base}", *OPTIONS, *places, f"run_dir={run}"]
            return execute("finetune", recipes.finetune.main, words)

    def kept(self, _: Path) -> dict[str, Any]:
        """Steps are made again from the last checkpoint."""
        return {}

    def outcome(self, run: Path) -> dict[str, Any]:
        """Result, metrics, sample, and the adapters and the optimizer's state of the newest checkpoint and the best."""
        result = json.loads((run / "result.json").read_text())
        history = History(run / "checkpoints")
        found: dict[str, Any] = {"steps": history.steps(), "best": Path(result["best_checkpoint"]).name}
        for step in history.steps():
            checkpoint = history.path(step)
            verify_manifest(checkpoint)
            for name in ("adapters.safetensors", "optimizer.safetensors", "adapter_config.json"):
                found[f"{step} {name}"] = (checkpoint / name).read_bytes()
        rows = read_metrics(run / "metrics.jsonl")
        losses = ("attention_loss", "kl_loss", "val_loss")
        keys = ("steps", "tokens", "original_tokens", "first_attention_loss", "surgery", "val_bits_per_byte", *losses)
        return {
            **found,
            "result": {key: result[key] for key in keys},
            "metrics": [(row["step"], *map(row.get, losses)) for row in rows],
            "sample": (run / "samples.txt").read_bytes(),
            "peft": (run / "peft" / "adapter_model.safetensors").read_bytes(),
        }
