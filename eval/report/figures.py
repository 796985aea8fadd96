"""The figures of the report, in its order: what matters in a model first, then single layers, then the instrument."""

from eval.report import layer_figures, model_figures
from eval.report.drawing import FigureKind

PARETO = FigureKind(
    name="pareto",
    title="Speed, quality and memory",
    caption="Each variant's bits per byte at equal tokens against what it costs in the same model. Bars are 95 % "
    "intervals of speeds and standard deviations over seeds; large marks on the stepped line are variants that no "
    "other beats in one without losing in the other.",
    draw=model_figures.draw_pareto,
)
FIGURES: tuple[FigureKind, ...] = (
    PARETO,
    FigureKind(
        name="loss_curves",
        title="Quality while training",
        caption="Validation values, mean over seeds with their range as a band: by tokens, where all have read the "
        "same, and by seconds of training, where a faster variant is further on.",
        draw=model_figures.draw_loss_curves,
    ),
    FigureKind(
        name="recall",
        title="Recall: accuracy by number of pairs",
        caption="Multi-query associative recall, mean over seeds ± standard deviation, on examples that neither "
        "training nor validation saw. The setting was chosen for full attention to learn the task: what the others "
        "reach is what they reach in that many steps.",
        draw=model_figures.draw_recall,
    ),
    FigureKind(
        name="needle",
        title="Needle maps",
        caption="Share of passkey tokens retrieved, by length of the context and depth of the passkey (0: beginning, "
        "1: end), mean over seeds. The setting was chosen for full attention to learn the task. One layer sees no "
        "further back than its window, and n layers no further than n windows.",
        draw=model_figures.draw_needle,
    ),
    FigureKind(
        name="transfer",
        title="From the kernel to the model",
        caption="Speed-ups over unfused MHA of whole models, against what Amdahl's law makes of the op's own speed-up "
        "and of attention's share of the model's time. Points below the line lost on the way.",
        draw=model_figures.draw_transfer,
    ),
    FigureKind(
        name="latency",
        title="Latency over length",
        caption="Median milliseconds of one attention layer with its 95 % interval, one panel a mechanism; unfused MHA "
        "(dashed) and fused MHA are in all of them. Marks above a panel are lengths without a time, and why.",
        draw=layer_figures.draw_latency,
    ),
    FigureKind(
        name="speedups",
        title="Speed-ups over unfused attention",
        caption="Blue is faster than unfused MHA, orange slower, grey equal; the colours are logarithmic, centred on "
        "1. ≈: the 95 % interval contains 1; once: a single sample, which has none. Other mechanisms are other "
        "functions; what they cost in quality stands in the table of variants.",
        draw=layer_figures.draw_speedups,
    ),
    FigureKind(
        name="decode_memory",
        title="Memory over length",
        caption="Bytes of MLX's allocator in a process of its own; hollow: by formula, not measured. A cache that "
        "stays level belongs to a mechanism with a window or a fixed state; a peak that grows twice as steeply as the "
        "length is a score matrix.",
        draw=layer_figures.draw_memory,
    ),
    FigureKind(
        name="control",
        title="A/A control",
        caption="The baseline of each group timed a second time, in the same rounds. At least nine intervals of ten "
        "should contain 1 (green); where they do not, the machine was busy and no other interval deserves trust.",
        draw=layer_figures.draw_control,
    ),
)
