"""Trains with 1, 2 and 4 processes, and says how far their losses differ: python -m tests.endurance.agreement steps=200

Plainly, with accumulation, with packed documents kept apart, with shards of the optimizer's state, adapters on packed
examples, and an exchanged attention that learns from its original; and one run that goes on with 4, 2, 1 and again 4
processes. Each line has the largest relative difference from one process over all steps; a run fails beyond the bound.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.endurance.trainings import write_corpus
from zoo.training import read_metrics

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
# Relative; sums over processes are rounded otherwise than sums over a batch, and a training magnifies it: of two
# processes 1e-6 after 50 steps, 2e-5 after 100, 8e-5 after 200.
BOUND = 1e-3
MODEL = ("model=llama_tiny", "model.num_layers=2", "model.hidden_size=64", "model.intermediate_size=96")
COMMON = (
    "training.batch_size=8",
    "training.sequence_length=65",
    "training.log_every=1",
    "training.eval_every=50",
    "training.checkpoint_every=null",
    "training.sample_tokens=0",
)
PLAIN = ("attention=swa", *MODEL, "tokenizer=bytes", "optimizer=adamw", "optimizer.schedule=constant", "data=text")
# Setting -> script, and what it is told; `{base}` is a run that was trained before.
SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("train", PLAIN),
    "muon": ("train", (*PLAIN[:-3], "optimizer=muon", "data=text")),
    "accumulation": ("train", (*PLAIN, "training.accumulation=2")),
    "packed documents": ("train", (*PLAIN, "data.mask_documents=true", "data.documents=blank_line")),
    "sharded state": ("train", (*PLAIN, "launch.shard=optimizer")),
    "adapters, packed examples": (
        "finetune",
        ("checkpoint={base}", "method=lora", "data=examples", "data.pack=true", "optimizer.learning_rate=1e-4"),
    ),
    "exchanged attention": (
        "finetune",
        ("checkpoint={base}", "method=full", "attention=linear", "distillation=two_stages", "data=text"),
    ),
}
MEASURED = ("train_loss", "attention_loss", "kl_loss", "val_loss")


class Runs:
    """Trainings in one folder."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Writes a corpus, examples, and the run that fine-tunings begin with."""
        self.folder, self.steps, self.corpus = folder, steps, write_corpus(folder)
        lines = [line for path in sorted(self.corpus.iterdir()) for line in path.read_text().splitlines() if line]
        examples = [{"prompt": one, "completion": two} for one, two in zip(lines[::2], lines[1::2], strict=False)]
        (folder / "examples").mkdir()
        (folder / "examples" / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in examples))
        self.base = self.run("base", "train", PLAIN, 1)

    def run(self, name: str, script: str, words: Sequence[str], processes: int, *, steps: int | None = None) -> Path:
        """Trains, or goes on."""
        run = self.folder / name
        data = "examples" if "data=examples" in words else "corpus"
        told = [word.format(base=self.folder / "base") for word in words]
        places = [f"data.path={self.folder / data}", f"data.cache_dir={self.folder / 'cache'}", f"run_dir={run}"]
        two_stages = [f"distillation.attention_steps={self.steps // 2}"] if "distillation=two_stages" in words else []
        own = [f"training.steps={steps or self.steps}", "resume=auto", f"launch.processes={processes}"]
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), *told, *COMMON, *two_stages, *places, *own]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return run


def difference(found: Path, expected: Path) -> float:
    """The largest relative difference of what was logged."""
    (ours, theirs), differences = (read_metrics(run / "metrics.jsonl") for run in (found, expected)), [0.0]
    for name in MEASURED:
        pairs = [[row[name] for row in rows if row.get(name) is not None] for rows in (ours, theirs)]
        assert len(pairs[0]) == len(pairs[1]), (found, name)
        differences += [abs(a / b - 1) for a, b in zip(*pairs, strict=True)]
    return max(differences)


def command(words: Sequence[str]) -> None:
    """The command line."""
    given = {"steps": "200", "only": "", **dict(word.split("=") for word in words)}
    steps, worst = int(given["steps"]), {}
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(Path(name), steps)
        for setting, (script, told) in SETTINGS.items():
            if given["only"] in setting:
                one, *others = (runs.run(f"{setting}-{each}", script, told, each) for each in (1, 2, 4))
                found = {each: difference(other, one) for each, other in zip((2, 4), others, strict=True)}
                worst[setting] = max(found.values())
                shown = ", ".join(f"{each} processes {value:.1e}" for each, value in found.items())
                print(f"{setting}, {steps} steps: {shown}", flush=True)
        if not given["only"]:
            for part, processes in enumerate((4, 2, 1, 4), start=1):
                run = runs.run("resumed", "train", PLAIN, processes, steps=part * steps // 4)
            worst["resumed"] = difference(run, runs.folder / "plain-1")
            print(f"resumed with 4, 2, 1 and 4 processes: {worst['resumed']:.1e}", flush=True)
    assert max(worst.values()) <= BOUND, worst


if __name__ == "__main__":
    command(sys.argv[1:])
