"""What a rule is made of: its parts, and the elementary functions that the rules and the skeleton share."""

from typing import NamedTuple

import triton
import triton.language as tl


class Rule(NamedTuple):
    """The parts of one loss: no `terms` where p_y says it all, no `update` where targets are only read."""

    finish: triton.JITFunction | None = None
    terms: triton.JITFunction | None = None
    num_sums: int = 0
    prepare: triton.JITFunction | None = None
    prepare_max: bool = False
    update: triton.JITFunction | None = None
    kept: triton.JITFunction | None = None
    gate: triton.JITFunction | None = None
    blend: triton.JITFunction | None = None
    prepare_first: bool = False
    linear: triton.JITFunction | None = None
    unite: triton.JITFunction | None = None


@triton.jit
def exp(x):
    """e^x. In fp32 results below the least normal number are 0; tl.exp takes three more instructions to keep them."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return tl.exp2(x * 1.4426950408889634)


@triton.jit
def reciprocal(x):
    """1 / x for x from 1e-30 to 1e30, to 1 ulp or so; a division takes twice the instructions, for all the others.

    One step of Newton's on the square of the approximate 1 / sqrt(x), which is off by some 2^-21.
    """
    if x.dtype == tl.float64:
        return 1.0 / x
    else:
        root = tl.rsqrt(x)
        guess = root * root
        return guess + guess * (1.0 - x * guess)


@triton.jit
def log_near_1(x):
    """log(1 + x) in fp32 for x in [-1/4, 1/2], within 1.4e-7 of itself."""
    square = x * x
    even = (-4.54559326e-2 * square - 1.32279143e-1) * square - 1.66416913e-1
    odd = (1.05529785e-1 * square + 1.44911006e-1) * square + 1.99887201e-1
    tail = odd * x + (even * square - 2.50002742e-1)
    return ((tail * x + 3.33335280e-1) * x - 0.5) * square + x


@triton.jit
def exponent(x):
    """The pattern of 2^k, less that of 1, where x is 2^k times a number in [3/4, 3/2); for normal fp32 x > 0."""
    return (x.to(tl.int32, bitcast=True) - 0x3F400000) & -0x00800000


@triton.jit
def log(x):
    """log x for normal x > 0, within 2e-7 of itself; finite at 0. tl.log takes 9 more instructions, for all the others.

    NaN stays NaN.
    """
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        shift = exponent(x)
        scale = (0x3F800000 - shift).to(tl.float32, bitcast=True)
        return shift.to(tl.float32) * 8.2629582e-8 + log_near_1(x * scale - 1.0)


@triton.jit
def log1p(x):
    """log(1 + x) for x >= 0, within 1.4e-7 of itself: with 2^k near 1 + x, k log 2 + log(1 + (x 2^-k + (2^-k - 1))).

    In fp64 the logarithm of the rounded 1 + x, corrected by how far that is from 1 + x (Kahan).
    """
    if x.dtype == tl.float64:
        above = 1.0 + x
        return tl.where(above == 1.0, x, tl.log(above) * (x / tl.where(above == 1.0, 1.0, above - 1.0)))
    else:
        shift = exponent(1.0 + x)
        scale = (0x3F800000 - shift).to(tl.float32, bitcast=True)
        return shift.to(tl.float32) * 8.2629582e-8 + log_near_1(x * scale + (scale - 1.0))


@triton.jit
def log_sigmoid(x):
    return tl.minimum(x, 0.0) - log1p(exp(-tl.abs(x)))


@triton.jit
def power(x, EXPONENT: tl.constexpr):
    """x^EXPONENT for x >= 0; 0^0 is 1. A negative exponent may overflow: x is kept above the least normal number."""
    if EXPONENT == 0:
        return x * 0.0 + 1.0
    elif EXPONENT == 1:
        return x
    else:
        return tl.where(x > 0, tl.exp(EXPONENT * tl.log(tl.maximum(x, 1.1754944e-38))), 0.0)
