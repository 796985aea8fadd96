"""Makes the tiny checkpoints under `pretrained/`, and what transformers computes of them.

    python -m tests.references.make_pretrained [NAME …]

Needs torch, transformers 5, mlx and mlx-lm, in an environment of its own; the tests that read the result need none of
them but mlx. Settings are awkward on purpose: a default that is read where the config says otherwise shows, texts are
longer than the trained length, heads are wider than hidden_size / num_heads, weights are large enough to make
attention uneven. Each folder holds `model/` and `expected.npz`:

    tokens_BL, lengths_B, types_BL    what was asked
    logits_BLV or hidden_BLD          of whole rows; of an encoder beside them pooled_BD (means) and scores_BC
    steps_LV, prefill                 logits with a cache, the tokens from `prefill` on read one by one
    prompt, greedy                    a prompt and the text that follows it, through the folder's tokenizer
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.references.pretrained_cases import (
    CASES,
    ENDS_EARLY,
    QUANTIZED,
    V,
    as_version_4,
    rewrite_config,
    rewrite_tensors,
)

OUT = Path(__file__).resolve().parent / "pretrained"
LENGTH, PREFILL = 40, 29
TEXT = (
    "the cat sat on a mat and the dog ran to the cat then they all sat down in the sun by the old red barn while every"
    " quick brown fox jumped over lazy hedges, which few people would have expected of such animals"
)
# Longer than the trained length of the model that adapts to it.
PROMPT, GREEDY_TOKENS = "the dog sat on a mat and they all ran to the sun by the old red barn", 20


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that make every tensor count: none is 0 or 1, and scores differ by several units."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm else 0.3 * noise)


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of V tokens: `llama` puts <s> before a text, `gpt2` nothing, `bert` [CLS] and [SEP] around it."""
    words = TEXT.split()
    lines = [" ".join(words[start:]) for start in range(len(words))]
    if kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = tokenizers.normalizers.BertNormalizer()
        backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        backend.train_from_iterator(lines, tokenizers.trainers.WordPieceTrainer(vocab_size=V, special_tokens=special))
        around = [("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]"))]
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=around
        )
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
        return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    special = ["<unk>", "<s>", "</s>"]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.train_from_iterator(lines, tokenizers.trainers.BpeTrainer(vocab_size=V, special_tokens=special))
    assert backend.get_vocab_size() == V, "every number that a model can give has to be a token"
    if kind == "llama":
        start = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        backend.post_processor = start
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def language_expected(folder: Path) -> dict[str, Any]:
    """What transformers computes of a language model: whole rows, with a cache, and greedy text."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    tokens_BL = torch.randint(3, V, (1, LENGTH), generator=torch.Generator().manual_seed(5))
    facts: dict[str, Any] = {"tokens_BL": tokens_BL.numpy().astype(np.int32), "prefill": PREFILL}
    with torch.no_grad():
        # A model that adapts to the length of its text keeps what it has adapted to: each answer is a fresh one's.
        facts["logits_BLV"] = model(tokens_BL).logits.numpy()
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        read = model(tokens_BL[:1, :PREFILL], use_cache=True)
        steps = [read.logits[0, -1]]
        for index in range(PREFILL, LENGTH):
            read = model(tokens_BL[:1, index : index + 1], past_key_values=read.past_key_values, use_cache=True)
            steps.append(read.logits[0, -1])
        facts["steps_LV"] = torch.stack(steps).numpy()
        if (folder / "tokenizer.json").exists():
            own = transformers.AutoTokenizer.from_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            ).eval()
            ids = own(PROMPT, return_tensors="pt").input_ids
            asked = {"max_new_tokens": GREEDY_TOKENS, "do_sample": False, "pad_token_id": 0}
            out = model.generate(ids, **asked)
            if folder.parent.name in ENDS_EARLY:
                # One more token that ends a text, which the tokenizer knows nothing of.
                model.generation_config.eos_token_id = [2, int(out[0, ids.shape[1] + 7])]
                model.generation_config.save_pretrained(folder)
                out = model.generate(ids, **asked)
            ends = np.atleast_1d(model.generation_config.eos_token_id)
            # A token that ends a text is no part of it.
            written = [int(each) for each in out[0, ids.shape[1] :] if int(each) not in ends]
            facts |= {"prompt": PROMPT, "greedy": own.decode(written, skip_special_tokens=True)}
    return facts


def encoder_expected(folder: Path) -> dict[str, Any]:
    """What transformers computes of an encoder, with token types and padded rows."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens_BL = torch.randint(5, V, (3, 17), generator=torch.Generator().manual_seed(5))
    lengths_B = torch.tensor([17, 5, 12])
    valid_BL = torch.arange(17) < lengths_B[:, None]
    types_BL = (torch.arange(17) >= torch.tensor([[9], [2], [4]])).long() * valid_BL
    asked = {"input_ids": tokens_BL * valid_BL, "attention_mask": valid_BL.long(), "token_type_ids": types_BL}
    with torch.no_grad():
        out = model(**asked, output_hidden_states=True)
    hidden_BLD = out.hidden_states[-1]
    pooled_BD = (hidden_BLD * valid_BL[..., None]).sum(1) / lengths_B[:, None]
    facts = {"tokens_BL": asked["input_ids"], "lengths_B": lengths_B, "types_BL": types_BL}
    facts = {key: value.numpy().astype(np.int32) for key, value in facts.items()}
    facts |= {"hidden_BLD": hidden_BLD.numpy(), "pooled_BD": pooled_BD.numpy()}
    logits = out.get("logits", out.get("prediction_logits"))
    if logits is not None:
        facts["scores_BC" if logits.ndim == 2 else "logits_BLV"] = logits.numpy()
    return facts


def save(folder: Path, model: transformers.PreTrainedModel, how: dict[str, Any]) -> None:
    """Saves a checkpoint as `how` says."""
    model.to(how.get("dtype", torch.float32))
    shards = {"max_shard_size": how["shard"]} if "shard" in how else {}
    model.save_pretrained(folder, **shards)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if "tensors" in how:
        rewrite_tensors(folder, how["tensors"])
    if "config" in how:
        rewrite_config(folder, how["config"])
    if "tokenizer" in how:
        tokenizer(how["tokenizer"]).save_pretrained(folder)


def save_quantized(folder: Path, original: Path, scheme: dict[str, Any], others: dict[str, Any]) -> None:
    """Lets mlx-lm quantize a checkpoint, and puts what the quantized weights stand for in place of the original's."""
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    model, config = load_model(original)

    def chosen(path: str, module: Any) -> bool | dict[str, Any]:
        return next((how for name, how in others.items() if path.endswith(name)), hasattr(module, "to_quantized"))

    mode = scheme.get("mode", "affine")
    model, config = quantize_model(
        model, config, scheme["group_size"], scheme["bits"], mode=mode, quant_predicate=chosen
    )
    save_model(folder, model)
    save_config(config, folder / "config.json")
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    tensors = load_file(original / "model.safetensors")
    is_turned = config["model_type"] == "gpt2"
    for name, module in model.named_modules():
        if "scales" not in module:
            continue
        how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        weight = mx.dequantize(module.weight, module.scales, module.get("biases"), **how).astype(mx.float32)
        theirs = f"{name}.weight"
        if is_turned:
            theirs = theirs.removeprefix("model.")
            weight = weight.T if "wte" not in name and "wpe" not in name else weight
        tensors[theirs] = torch.from_numpy(np.array(weight))
    save_file({name: each.contiguous().float() for name, each in tensors.items()}, original / "model.safetensors")


def as_mlx_lm_reads(folder: Path) -> None:
    """Spells a checkpoint so that mlx-lm, which knows neither `rope_parameters` nor GPT-2 without n_ctx, reads it."""

    def change(config: dict[str, Any]) -> None:
        if "rope_parameters" in config:
            as_version_4(config)
        if config["model_type"] == "gpt2":
            config["n_ctx"] = config["n_positions"]

    rewrite_config(folder, change)
    if json.loads((folder / "config.json").read_text())["model_type"] == "gpt2":
        rewrite_tensors(
            folder, lambda tensors: {name.removeprefix("transformer."): each for name, each in tensors.items()}
        )


def make(name: str, seed: int) -> None:
    """Makes one reference."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    if name in QUANTIZED:
        build, scheme, others = QUANTIZED[name]
        model = build()
        randomise(model, seed)
        original = folder / "original"
        save(original, model, {})
        as_mlx_lm_reads(original)
        save_quantized(folder / "model", original, scheme, others)
        facts = language_expected(original)
        shutil.rmtree(original)
    else:
        build, how = CASES[name]
        model = build()
        randomise(model, seed)
        save(folder / "model", model, how)
        facts = (encoder_expected if name.startswith("bert") else language_expected)(folder / "model")
    np.savez_compressed(folder / "expected.npz", **facts)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name}: {size} bytes", facts.get("greedy", ""))


if __name__ == "__main__":
    names = [*CASES, *QUANTIZED]
    for each in sys.argv[1:] or names:
        make(each, seed=names.index(each))
