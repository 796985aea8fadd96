"""What AttnBench claims (https://github.com/dirmacs/attn-bench): eight attention layers in Swift and MLX on an M4."""

from eval.claims.claim import Claim

ARTICLE = "AttnBench, article"
BOTH = "AttnBench, article and post"


def _claim(
    identity: str,
    statement: str,
    published: str,
    source: str = BOTH,
    *,
    on_apple: bool = True,
) -> Claim:
    return Claim(
        id=identity,
        source=source,
        statement=statement,
        published=published,
        on_apple=on_apple,
    )


WINDOWS = (
    _claim("gather-slower", "A gathered sliding window is slower than a masked full matrix", "5.8-7.2x"),
    _claim("gather-128", "Gathered over masked window at N=128", "5.7x"),
    _claim("gather-256", "Gathered over masked window at N=256", "7.3x"),
    _claim("gather-cache", "Gathering is slow because it misses the cache", "an explanation", ARTICLE),
    _claim("gather-worse", "The gather's overhead grows with the length", "5.7x -> 7.3x"),
    _claim("masked-optimal", "No true sliding window beats the masked full matrix", "never use gather"),
    _claim(
        "window-128-over-64",
        "At N=256 the masked window of 128 is faster than that of 64",
        "1.34 against 1.69 ms",
        ARTICLE,
    ),
    _claim("gather-heat-map", "Speed of the gathered window relative to MHA, N=128 and 256", "0.11-0.15x", ARTICLE),
)
BLOCKS = (
    _claim("blocksparse-1.9", "Block-sparse is faster than MHA at N=1024", "1.90x"),
    _claim("blocksparse-p", "The difference at N=1024 is significant by Welch's test", "p < 0.001"),
    _claim("blocksparse-below", "Below the crossover, at N=128 and 256, MHA wins", "0.79x, 0.87x", ARTICLE),
    _claim("blocksparse-tie", "At N=512 MHA and block-sparse tie", "1.01x", ARTICLE),
    _claim("blocksparse-crossover", "Block-sparse overtakes MHA", "N = 400-600"),
    _claim("block-32-beats-64", "Blocks of 32 beat blocks of 64 at every length", "+6 % to +10 %", ARTICLE),
    _claim("blocksparse-no-cliff", "Block-sparse avoids MHA's jump from N=512 to 1024", "1.35x against 2.55x"),
)
LINEAR = (
    _claim("linear-1.59", "Linear attention is faster than MHA at N=1024", "1.59x"),
    _claim("linear-below", "At N=128, 256 and 512 MHA beats linear attention", "0.64x, 0.78x, 0.86x", ARTICLE),
    _claim("linear-crossover", "Linear attention overtakes MHA", "N = 768", ARTICLE),
    _claim("linear-later", "Linear attention crosses over later than block-sparse", "768 against 400-600", ARTICLE),
    _claim(
        "linear-approximates",
        "Linear attention approximates, which may cost quality",
        "a trade-off",
        ARTICLE,
        on_apple=False,
    ),
    _claim("feature-map", "The feature map elu(x) + 1 keeps weights non-negative", "non-negative", ARTICLE),
    _claim("causal-linear-128", "Causal over bidirectional linear attention at N=128", "1.63x", ARTICLE),
    _claim("causal-linear-256", "Causal over bidirectional linear attention at N=256", "1.75x", ARTICLE),
    _claim("causal-linear-512", "Causal over bidirectional linear attention at N=512", "2.96x"),
    _claim("causal-linear-grows", "Causal linear attention's overhead grows with the length", "1.63x -> 2.96x"),
    _claim("causal-linear-avoid", "Causal linear attention is to be avoided: about 3x at N=512", "3x"),
    _claim(
        "causal-blocks-instead",
        "Block-sparse attention with a causal mask is to be used instead of causal linear attention",
        "a recommendation",
        ARTICLE,
    ),
)
DENSE = (
    _claim("mha-baseline", "MHA as timed is the standard that others have to beat", "the baseline"),
    _claim("gqa-20-percent", "GQA with 4 KV heads is 20 % faster than MHA at N=128", "1.20x"),
    _claim("gqa-memory", "GQA with 4 of 8 KV heads halves the cache", "-50 %", ARTICLE, on_apple=False),
    _claim("mqa-slower-128", "MQA is slower than MHA at N=128", "0.93x", ARTICLE),
    _claim(
        "mqa-broadcasting",
        "Broadcasting one KV head to all queries costs more than it saves at short lengths",
        "an explanation",
        ARTICLE,
    ),
    _claim("mqa-256", "MQA is faster than MHA at N=256", "1.03x", ARTICLE),
    _claim("mqa-512", "MQA is faster than MHA at N=512", "1.08x", ARTICLE),
    _claim("mqa-1024", "MQA is faster than MHA at N=1024", "1.10x", ARTICLE),
    _claim("mqa-cache", "MQA needs less cache at 8 heads", "-87.5 %", ARTICLE, on_apple=False),
    _claim("dense-tie", "At N=256 and 512 the dense variants differ marginally", "marginal"),
)
CHOICE = (
    _claim("best-128", "The fastest at N=128 is GQA", "0.87 ms"),
    _claim("best-256", "The fastest at N=256 is MaskedSWA with window 128", "1.34 ms", ARTICLE),
    _claim("best-512", "The fastest at N=512 is MQA", "1.59 ms", ARTICLE),
    _claim("best-1024", "The fastest at N=1024 is block-sparse with blocks of 32", "2.31 ms"),
    _claim("none-dominates", "No single mechanism is the fastest at every length", "four winners"),
    _claim("adaptive", "Choosing by length at run time pays, also within one mechanism", "suggested"),
)
SCALING = (
    _claim("elbow-2.55", "MHA's time from N=512 to 1024 grows", "2.55x", ARTICLE),
    _claim("elbow", "MHA's growth has a sharp elbow at N=512 to 1024", "1.21x, then 2.55x"),
    _claim("elbow-l2", "At N=1024 the scores of 8 heads just fill a 4 MB L2 cache", "4 MB"),
    _claim(
        "elbow-cache",
        "The elbow is the step from compute to memory, as the scores outgrow the L2 cache",
        "an explanation",
        ARTICLE,
    ),
    _claim("slope-mha", "MHA grows as a power of N", "1.73", ARTICLE),
    _claim("slope-mha-own", "MHA's slope follows from the published table", "1.73", ARTICLE),
    _claim("slope-blocksparse", "Block-sparse grows as a power of N, nearly linear", "0.89", ARTICLE),
    _claim("slope-blocksparse-own", "Block-sparse's slope follows from the published table", "0.89", ARTICLE),
    _claim("slope-linear", "Linear attention grows as a power of N", "0.76", ARTICLE),
    _claim("slope-linear-own", "Linear attention's slope follows from the published table", "0.76", ARTICLE),
)
METHOD = (
    _claim("spread", "The coefficient of variation is below 6 % in every cell", "CV < 6 %"),
    _claim(
        "intervals",
        "Intervals rest on 5 x 20 = 100 measurements in every cell",
        "100 measurements",
        on_apple=False,
    ),
    _claim("m4-times", "Milliseconds of an MHA layer at N=1024 on an M4", "4.38 ms", ARTICLE),
    _claim("amx", "The matrix units of Apple's CPU cores (AMX) make dense work cheap", "an explanation"),
)

CLAIMS = (*WINDOWS, *BLOCKS, *LINEAR, *DENSE, *CHOICE, *SCALING, *METHOD)
