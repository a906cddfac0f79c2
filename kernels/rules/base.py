"""The parts of a rule, and the elementary functions that the rules and the skeleton share."""

from typing import NamedTuple

import triton
import triton.language as tl


class Rule(NamedTuple):
    """The parts of one loss. It has no `terms` if p_y alone decides the loss, and no `update` or `step` if targets are
    only read."""

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
    step: triton.JITFunction | None = None


@triton.jit
def exp(x):
    """e^x. In fp32 results below the smallest normal number are 0. tl.exp keeps them with three more instructions."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return tl.exp2(x * 1.4426950408889634)


@triton.jit
def reciprocal(x):
    """1 / x for x from 1e-30 to 1e30, to about 1 ulp. A division serves all x and takes twice the instructions.

    It is one Newton step on the square of the approximate 1 / sqrt(x), whose error is about 2^-21.
    """
    if x.dtype == tl.float64:
        return 1.0 / x
    else:
        root = tl.rsqrt(x)
        guess = root * root
        return guess + guess * (1.0 - x * guess)


@triton.jit
def log_near_1(x):
    """log(1 + x) in fp32 for x in [-1/4, 1/2], with a relative error of at most 1.4e-7."""
    square = x * x
    even = (-4.54559326e-2 * square - 1.32279143e-1) * square - 1.66416913e-1
    odd = (1.05529785e-1 * square + 1.44911006e-1) * square + 1.99887201e-1
    tail = odd * x + (even * square - 2.50002742e-1)
    return ((tail * x + 3.33335280e-1) * x - 0.5) * square + x


@triton.jit
def exponent(x):
    """The bits of 2^k minus the bits of 1, if x is 2^k times a number in [3/4, 3/2); for normal fp32 x > 0."""
    return (x.to(tl.int32, bitcast=True) - 0x3F400000) & -0x00800000


@triton.jit
def log(x):
    """log x for normal x > 0, with a relative error of at most 2e-7. It is finite at 0, and NaN stays NaN.

    tl.log serves all x and takes 9 more instructions.
    """
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        shift = exponent(x)
        scale = (0x3F800000 - shift).to(tl.float32, bitcast=True)
        return shift.to(tl.float32) * 8.2629582e-8 + log_near_1(x * scale - 1.0)


@triton.jit
def log1p(x):
    """log(1 + x) for x >= 0, with a relative error of at most 1.4e-7.

    With 2^k near 1 + x it is k log 2 + log(1 + (x 2^-k + (2^-k - 1))). In fp64 it is the logarithm of the rounded 1 +
    x, corrected by the rounding error (Kahan).
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
    """x^EXPONENT for x >= 0. 0^0 is 1. With a negative exponent x is raised to the smallest normal number first,
    against overflow."""
    if EXPONENT == 0:
        return x * 0.0 + 1.0
    elif EXPONENT == 1:
        return x
    else:
        return tl.where(x > 0, tl.exp(EXPONENT * tl.log(tl.maximum(x, 1.1754944e-38))), 0.0)
