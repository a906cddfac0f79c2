"""A loss whose upstream gradient is known to be one, so that the product with it is left out, eager or compiled."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import once_differentiable

from . import batch_norm
from .registry import Fused

aten, prims = torch.ops.aten, torch.ops.prims


@torch.library.custom_op("fastnoise::one", mutates_args=())
def one(upstream: Tensor) -> Tensor:
    """Ones with shape, dtype and device of a gradient that is known to be one."""
    return torch.ones_like(upstream)


one.register_fake(torch.empty_like)


class UnitGradient(torch.autograd.Function):
    """The identity. Its gradient is one, whatever the upstream gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        # Not a constant: of a backward pass that does not depend on what comes from above, the partitioner takes most
        # for the forward pass, and computes convolutions in both.
        gradient: Tensor = torch.ops.fastnoise.one.default(upstream)
        return gradient


def with_unit_gradient(loss: Tensor) -> Tensor:
    """The loss, for a caller that only calls its `backward`, with a gradient of one.

    A fused loss then scales no gradient. If the loss is made of several losses, only its own upstream gradient is known
    to be one; the gradient that reaches each of them is computed as usual. For compiled code pass `inductor_options` to
    torch.compile, which leave the scaling out.
    """
    if torch.compiler.is_compiling():
        unit: Tensor = UnitGradient.apply(loss)
        return unit
    if isinstance(loss.grad_fn, Fused._backward_cls):
        setattr(loss.grad_fn, "is_unit", True)  # noqa: B010  an autograd node has no such attribute for mypy
    return loss


@cache
def inductor_options() -> dict[str, Any]:
    """Options of torch.compile that make Inductor leave out products with the gradient of `with_unit_gradient`, and
    sums of gradients that the next op can form by itself (`batch_norm.fold_second_gradients`)."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Fold(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            fold_ones(graph)
            batch_norm.fold_second_gradients(graph)

        def uuid(self) -> bytes:
            return get_hash_for_files((__file__, batch_norm.__file__))

    return {"post_grad_custom_pre_pass": Fold()}


def fold_ones(graph: fx.Graph) -> None:
    """Remove factors of one from a graph, and conversions to the dtype that a number already has."""
    ones = list(graph.find_nodes(op="call_function", target=torch.ops.fastnoise.one.default))
    found = bool(ones)
    for node in ones:
        with graph.inserting_before(node):
            value = node.meta["val"]
            full = graph.call_function(
                aten.full.default, (list(value.shape), 1.0), {"dtype": value.dtype, "device": value.device}
            )
        full.meta = node.meta
        node.replace_all_uses_with(full)
        graph.erase_node(node)
        spread_ones(graph, full)
    if found:
        graph.eliminate_dead_code()


FORMS = aten.view.default, aten.reshape.default, aten.expand.default, aten.unsqueeze.default
CONVERT = prims.convert_element_type.default


def spread_ones(graph: fx.Graph, ones: fx.Node) -> None:
    """Replace each product with `ones`, or with a reshaped form of them, by its other factor."""
    for user in list(ones.users):
        if user.target in (*FORMS, CONVERT) and user.args[0] is ones:
            spread_ones(graph, user)
        elif user.target is aten.mul.Tensor:
            factor = next((x for x in user.args if x is not ones), None)
            if isinstance(factor, fx.Node):
                replace(user, factor)
                if factor.target is CONVERT and factor.meta["val"].dtype == torch.float32:
                    replace(user, factor.args[0])


def replace(product: fx.Node, factor: Any) -> None:
    """Replace the product by the factor. If the product has another dtype, replace its conversions back to the
    factor's dtype."""
    for node in (product, *product.users):
        mine, its = factor.meta["val"], node.meta["val"]
        if (node is product or node.target is CONVERT) and (mine.shape, mine.dtype) == (its.shape, its.dtype):
            node.replace_all_uses_with(factor)
