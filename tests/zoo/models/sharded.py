"""Two processes split every variant's model, and the first prints what came of each; for mlx.launch.

For each variant, one line of JSON: why it was refused, or the largest differences of logits from the whole model's (of
a text at once, and token by token), and which shares of the weights and of the cache this process holds.
"""

import json
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_reduce

from tests.zoo.generation.models import decodable, tiny_model
from zoo.config import UserError
from zoo.models.sharding import shard
from zoo.runtime.backend import choose_backend
from zoo.runtime.processes import connected

LENGTH = 40
# Relatives of Llama and GPT that differ in what is split, beside every variant in a plain one.
CASES = {
    **{name: {"attention": name} for name in decodable()},
    "qk_norm": {"attention": "gqa", "qk_norm": True, "tie_word_embeddings": True},
    "alibi": {"attention": "mha", "positions": "alibi"},
    "one head": {"attention": "mqa"},
    "gpt": {"attention": "swa", "family": "gpt", "max_seq_len": LENGTH, "intermediate_size": 96},
}


def main() -> None:
    """The child process."""
    choose_backend("cpu")
    processes = connected()
    assert processes.group is not None
    for name, choices in CASES.items():
        print(json.dumps({"name": name, **tried(dict(choices), processes.group)}), flush=True)


def tried(choices: dict[str, Any], group: mx.distributed.Group) -> dict[str, object]:
    """What comes of one case."""
    model = tiny_model(str(choices.pop("attention")), **{"num_kv_heads": 2, "hidden_size": 24, **choices})
    tokens_BL = mx.array(np.random.default_rng(3).integers(1, model.config.vocab_size, (1, LENGTH)))
    whole = model(tokens_BL)
    cached, cache = by_token(model, tokens_BL)
    mx.eval(whole, cached)
    weights = num_bytes(model)
    try:
        shard(model, group)
    except UserError as error:
        return {"refused": str(error)}
    own = model(tokens_BL)
    own_cached, own_cache = by_token(model, tokens_BL)
    return {
        "difference": float((mx.abs(own - whole).max() / mx.abs(whole).max()).item()),
        "cached_difference": float((mx.abs(own_cached - cached).max() / mx.abs(whole).max()).item()),
        "weights": num_bytes(model) / weights,
        "cache": own_cache / cache,
    }


def by_token(model: Any, tokens_BL: mx.array) -> tuple[mx.array, int]:
    """Logits of the last token after one text was read token by token, and the bytes of the caches."""
    cache = model.make_cache()
    for index in range(tokens_BL.shape[1]):
        logits = model(tokens_BL[:, index : index + 1], cache=cache)
        mx.eval(logits)
    return logits, sum(each.nbytes for each in cache)


def num_bytes(model: Any) -> int:
    """Of a model's weights."""
    return int(tree_reduce(lambda total, array: total + array.nbytes, model.parameters(), 0))


if __name__ == "__main__":
    main()
