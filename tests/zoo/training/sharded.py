"""Four processes train with shards and without, and the first says what differs; on a ring.

One line of JSON for each case: the names of what differs in any bit from training without shards, the largest
difference, which share of the state's numbers this process holds, and what each holds. MLX's ring has no `sum_scatter`,
which `nn.fully_shard` needs: where weights are shared out, it is made of the ring's `all_sum` here.
"""

import json
from typing import Any

import zoo  # noqa: F401 - before MLX

import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten

from tests.zoo.training.tiny import TinyLoader, tiny_model, tiny_optimizer
from zoo.config import UserError
from zoo.runtime.backend import choose_backend
from zoo.runtime.processes import Processes, connected
from zoo.training.batches import own_rows, to_arrays
from zoo.training.step import EvaluationStep, Shard, StepOptions, TrainStep

STEPS = 4
# Name -> what is shared out, and how it is trained.
CASES: dict[str, tuple[Shard, dict[str, Any]]] = {
    "adamw": ("optimizer", {}),
    "compiled": ("optimizer", {"compiled": True}),
    "lion": ("optimizer", {"optimizer": "lion", "parts": 2}),
    "muon": ("optimizer", {"optimizer": "muon"}),
    "weights": ("weights", {}),
    "weights in parts": ("weights", {"optimizer": "lion", "parts": 2}),
    "compiled weights": ("weights", {"compiled": True, "checkpointing": True}),
}


def main() -> None:
    """The child process."""
    choose_backend("cpu")
    processes = connected()
    assert processes.group is not None
    refused = _refusal(processes)
    if processes.leads:
        print(json.dumps({"name": "refused", "why": refused}), flush=True)
    mx.distributed.sum_scatter = _sum_scatter  # type: ignore[assignment]
    for name, (shard, how) in CASES.items():
        whole, size, _ = trained(processes, shard=None, **how)
        own, share, held = trained(processes, shard=shard, **how)
        if processes.leads:
            found = {name: float(mx.abs(own[name] - whole[name]).max().item()) for name in whole}
            told = {
                "different": [each for each in whole if not mx.array_equal(whole[each], own[each]).item()],
                "difference": max(found.values()),
                "same_names": list(whole) == list(own),
                "share": share / size,
                "held": held,
            }
            print(json.dumps({"name": name, **told}), flush=True)


def trained(
    processes: Processes,
    *,
    shard: Shard | None,
    optimizer: str = "adamw",
    parts: int = 1,
    compiled: bool = False,
    checkpointing: bool = False,
) -> tuple[dict[str, mx.array], int, list[int]]:
    """Weights, whole state, losses and norms; how many numbers of state this process keeps; and how many each does."""
    model = tiny_model().train()
    model.checkpoint_gradients(checkpointing)
    chosen = tiny_optimizer(model, optimizer)
    options = StepOptions(causal=True, max_grad_norm=0.5, compile=compiled)
    step = TrainStep(model, chosen, options, processes=processes, shard=shard)
    judge = EvaluationStep(model, options)
    found = []
    for index in range(STEPS):
        batch = own_rows(TinyLoader(rows=8).batch(index), processes)
        (weight,) = processes.sums(float(batch.weights_BL.sum()))
        nats, norm, _ = step(to_arrays(batch, parts=parts), weight)
        mx.eval(nats, norm, step.state)
        judged, _ = judge(to_arrays(batch)[0])
        # By all: where weights are shared out, each needs the others' rows.
        mx.eval(judged)
        found += [nats, norm, judged]
    size = sum(array.size for _, array in tree_flatten(chosen.state))
    held = [int(processes.sums(size if rank == processes.rank else 0)[0]) for rank in range(processes.size)]
    # On others than the first there is none.
    state = dict(tree_flatten(step.whole_optimizer_state()))
    step.release()
    weights = dict(tree_flatten(model.parameters()))
    return {**weights, **state, "found": mx.stack(found)}, size, held


def _refusal(processes: Processes) -> str:
    model = tiny_model().train()
    try:
        TrainStep(model, tiny_optimizer(model), StepOptions(causal=True), processes=processes, shard="weights")
    except UserError as error:
        return str(error)
    return ""


def _sum_scatter(array: mx.array, *, group: mx.distributed.Group, stream: Any = None) -> mx.array:
    return mx.split(mx.distributed.all_sum(array, group=group), group.size(), axis=0)[group.rank()]


if __name__ == "__main__":
    main()
