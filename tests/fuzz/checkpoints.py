"""Checkpoints as strangers make them: every file changed, the manifest's sums made to match."""

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx

from tests.fuzz.hostile import as_json, changed, damaged, value
from tests.fuzz.subject import Subject, require_refusal
from tests.zoo.checkpoints.saved import small_model, small_optimizer
from tests.zoo.data.listed import SOURCE, ListedCorpus
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint, metaspace_checkpoint
from zoo.checkpoints import load_checkpoint, save_checkpoint
from zoo.checkpoints.manifest import MANIFEST, write_manifest
from zoo.data.tokenizers import BytesTokenizer, PretrainedTokenizer, SentencePieceConfig, Tokenizer
from zoo.generation import GenerationConfig, stream_text
from zoo.training import resume_run
from zoo.training.state import TrainingState


class Checkpoint(Subject):
    """Files of a checkpoint that is loaded, asked for logits, and resumed from."""

    name = "checkpoint"
    share = 5.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tokenizers: dict[str, Tokenizer] = {
            "bytes": BytesTokenizer(),
            "sentencepiece": SentencePieceConfig(vocab_size=530).build(
                ListedCorpus([SOURCE] * 3), cache_dir=folder / "cache"
            ),
            "byte_level": PretrainedTokenizer(byte_level_checkpoint(folder / "byte_level_source")),
            "metaspace": PretrainedTokenizer(metaspace_checkpoint(folder / "metaspace_source")),
        }
        self.saved = {}
        for name, tokenizer in tokenizers.items():
            model = small_model(vocab_size=max(tokenizer.vocab_size, 259))
            self.saved[name] = save_checkpoint(
                folder / name / "checkpoints" / "step_000004",
                model=model,
                tokenizer=tokenizer,
                optimizer_state=small_optimizer(model).state,
                training_state=TrainingState(step=4, tokens=9, first_loss=2.5).as_mapping(),
                config={"seed": 3, "data": {"corpus": "text", "path": "nothing"}, "training": {"batch_size": 2}},
            )

    def attempt(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(self.saved))
        place = folder / "run" / "checkpoints" / "step_000004"
        shutil.copytree(self.saved[name], place)
        files = sorted(path for path in place.iterdir() if path.name != MANIFEST)
        file = rng.choice(files)
        before = file.read_bytes()
        if file.suffix == ".safetensors":
            after = changed_arrays(rng, before)
        elif file.suffix == ".json" and rng.random() < 0.8:
            after = as_json(rng, changed(rng, json.loads(before)))
        else:
            after = damaged(rng, before)
        file.write_bytes(after)
        resealed = rng.random() < 0.85
        if resealed:
            (place / MANIFEST).unlink()
            write_manifest(place)
        use(place)
        if not resealed and after != before:
            require_refusal(f"a changed {file.name} under the old sums")


class Manifest(Subject):
    """Manifests that name what they should not, or leave out what is loaded."""

    name = "manifest"
    share = 1.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = small_model()
        self.saved = save_checkpoint(
            folder / "checkpoint",
            model=model,
            tokenizer=BytesTokenizer(),
            optimizer_state=small_optimizer(model).state,
            training_state=TrainingState(step=4).as_mapping(),
            config={"seed": 3},
        )

    def attempt(self, rng: random.Random, folder: Path) -> None:
        from zoo.checkpoints import manifest

        place = folder / "run" / "checkpoints" / "step_000004"
        shutil.copytree(self.saved, place)
        path = place / MANIFEST
        listed = json.loads(path.read_text())["files"]
        before = json.loads(json.dumps(listed))
        entry = rng.choice(sorted(listed))
        action = rng.randrange(5)
        if action == 0:
            del listed[entry]
        elif action == 1:
            listed[rng.choice(("/dev/zero", "/etc/hostname", "../outside", "a/../../x", "", ".", "\0"))] = listed[entry]
        elif action == 2:
            listed = {}
        elif action == 3:
            listed[entry] = value(rng)
        else:
            listed = changed(rng, listed)
        try:
            text = manifest._render(listed)
        except (ValueError, TypeError, RecursionError):
            text = "{}"
        path.write_bytes(damaged(rng, text.encode("utf-8", "surrogatepass")) if rng.random() < 0.2 else _encoded(text))
        use(place)
        if listed != before:
            require_refusal("a manifest that does not list its files")


def use(place: Path) -> None:
    """All that is done with a checkpoint: loading, a forward pass, a few tokens, resuming."""
    loaded = load_checkpoint(place)
    model: Any = loaded.model
    mx.eval(model(mx.array([[1, 2, 3, 4, 5]])))
    if loaded.tokenizer is not None:
        ids = loaded.tokenizer.encode_prompt("def f(): ▁ é")
        loaded.tokenizer.decode(ids)
        for piece in stream_text(model, loaded.tokenizer, "a", GenerationConfig(max_tokens=2)):
            str(piece)
    model = small_model(vocab_size=model.config.vocab_size)
    saved: Any = loaded.config
    resume_run(place.parent, model=model, optimizer=small_optimizer(model), run_config=saved)


def changed_arrays(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with another header, or other bytes."""
    if rng.random() < 0.25:
        return damaged(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    action = rng.randrange(8)
    if action == 0:
        header[name]["dtype"] = rng.choice(("I32", "I64", "F16", "BF16", "F64", "U8", "BOOL", "F8_E4M3", "C64", "x", 3))
    elif action == 1:
        header[name]["shape"] = rng.choice(([], [-1], [2**40, 2**40], [0], ["a"], None, [1.5], [2**63], 3))
    elif action == 2:
        start, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = rng.choice(
            ([end, start], [start, end + 4], [start], [0, 2**63], [-4, end], ["a", "b"], None, [start + 2, end + 2])
        )
    elif action == 3:
        other = rng.choice(names)
        header[name], header[other] = header[other], header[name]
    elif action == 4:
        header[rng.choice(("extra", "", "a.b.c", "model", "x" * 5000))] = header.pop(name)
    elif action == 5:
        header = changed(rng, header)
    elif action == 6:
        data = damaged(rng, data)
    else:
        # Not a number, endless, denormal: of the right shape.
        start, end = header[name].get("data_offsets", (0, 0))
        filling = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x01\x00\x00\x00"))
        data = data[:start] + (filling * ((end - start) // 4 + 1))[: end - start] + data[end:]
    text = as_json(rng, header)
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**32, 2**63, 2**64 - 1, len(text) + 8))
    return struct.pack("<Q", size) + text + data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
