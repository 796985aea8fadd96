"""What PyTorch's issue 181725 claims: `nn.MultiheadAttention` on MPS, on an M4 Pro."""

from eval.claims.claim import Claim


def _claim(identity: str, statement: str, published: str, *, on_apple: bool = True) -> Claim:
    return Claim(
        id=identity,
        source="PyTorch issue 181725",
        statement=statement,
        published=published,
        on_apple=on_apple,
    )


CLAIMS = (
    _claim(
        "wrapper-b1",
        "At B=1 on MPS the layer is slower than the same projections around the kernel",
        "6-11x; 1.8x for a small self-attention",
    ),
    _claim("wrapper-b4", "At B=4 on MPS the layer's overhead", "1.3x"),
    _claim("wrapper-batch", "The overhead is largest at B=1 and shrinks as the batch grows", "8.6x -> 1.3x"),
    _claim("wrapper-cpu", "On the CPU the layer costs nothing", "0.9x, about 1x", on_apple=False),
    _claim("wrapper-bits", "Layer and inlined code give bit-identical outputs", "max |diff| = 0"),
    _claim("wrapper-fixed", "Without the exchange of batch and sequence the overhead is gone", "1.0x"),
    _claim("layouts", "On MPS a transposed view makes a projection slow", "103 against 30 us"),
    _claim("layouts-reshape", "A reshape restores the fast layout, contiguous() does not", "31 against 99 us"),
)
