"""Stochastic rounding of the values of a half-precision target table, by random bits that depend on no order or device.

A moving average stalls under rounding to nearest. bfloat16 has steps of 0.0039 between 1/2 and 1. With momentum 0.99
the change (1 - momentum)(p - t) is less than half a step once t is within 0.19 of p, and is then lost at every visit.
Rounding up with a probability equal to the fraction that would be cut off is right on average.

The bits are counter-based: a hash of (seed, sample, number of earlier visits, column). `fastnoise.ops.tables` computes
the same bits in NumPy.
"""

import triton
import triton.language as tl


@triton.jit
def mix(x):
    """A bijection of uint32 in which every input bit flips about half of the output bits (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def row_key(sample, visit, SEED: tl.constexpr):
    """A uint32 for each visit of each sample, from which its random bits are made."""
    return mix(mix(mix(sample.to(tl.uint32)) ^ SEED) ^ visit.to(tl.uint32))


@triton.jit
def round_stochastically(value, key, column, DTYPE: tl.constexpr):
    """`value` (float32) in [0, 1], rounded to a neighbour in DTYPE such that its mean over the bits is `value`.

    Equally many random bits are added to the bits that are cut off; the sum overflows into the last kept bit with the
    right probability. float16 has 10 bits of mantissa down to 2^-14; below, its spacing is always 2^-24. Values that
    the arithmetic has left outside [0, 1] are clamped, and NaN stays NaN.
    """
    bits = mix(key ^ (column.to(tl.uint32) * 0x9E3779B9))
    clamped = tl.minimum(tl.maximum(value, 0.0), 1.0)
    pattern = clamped.to(tl.uint32, bitcast=True)
    if DTYPE == tl.bfloat16:  # noqa: SIM300
        upper = (pattern + (bits >> 16)) >> 16
        rounded = tl.where(value == value, upper, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        rounded = ((pattern + (bits >> 19)) & 0xFFFFE000).to(tl.float32, bitcast=True)
        steps = clamped * 16777216.0
        whole = tl.floor(steps)
        up = (bits >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-8 < steps - whole
        rounded = tl.where(clamped < 6.103515625e-5, tl.where(up, whole + 1.0, whole) * 5.9604644775390625e-8, rounded)
        rounded = tl.where(value == value, rounded, value).to(DTYPE)
    return rounded
