"""An H100 that isn't there: what PyTorch, Inductor and Triton ask of a GPU's driver, answered without one."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132, is_integrated=0,
    is_multi_gpu_board=0, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    warp_size=32, L2_cache_size=50 * 2**20, gcnArchName="", max_threads_per_block=1024, clock_rate=1980000,
    memory_clock_rate=2619000, memory_bus_width=5120, uuid="x", pci_bus_id=0, pci_device_id=0, pci_domain_id=0,
)  # fmt: skip


def pretend() -> None:
    """Let PyTorch, Inductor and Triton believe in one H100, for the rest of this process."""
    import torch._functorch.config as functorch
    import torch._inductor.config as config
    import torch._inductor.fx_passes.reinplace as reinplace
    import torch._subclasses.fake_tensor as fake_tensor
    import torch.utils._triton as support
    import triton
    from torch._dynamo.device_interface import CudaInterface
    from triton.backends.compiler import GPUTarget

    def answer(holder: Any, answers: dict[str, Any], wrap: Callable[..., Any] = lambda function: function) -> None:
        for name, value in answers.items():
            setattr(holder, name, wrap(lambda *_, _value=value, **__: _value))

    answer(torch.cuda, {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True, "synchronize": None,
        "get_device_name": H100.name, "get_device_capability": (9, 0), "get_device_properties": H100,
        "is_bf16_supported": True, "_lazy_init": None, "set_device": None, "_is_in_bad_fork": False,
        "_maybe_exchange_device": 0, "_exchange_device": 0, "is_current_stream_capturing": False, "set_rng_state": None,
    })  # fmt: skip
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = lambda *_: torch.get_rng_state()
    answer(torch._C, {
        "_cuda_getCurrentRawStream": 0, "_cuda_isCurrentStreamCapturing": False, "_cuda_getDevice": 0,
        "_cuda_setDevice": None, "_cuda_getDeviceCount": 1,
    })  # fmt: skip
    answer(torch.accelerator, {"is_available": False})
    answer(CudaInterface, {
        "is_available": True, "get_compute_capability": 90, "device_count": 1, "current_device": 0,
        "exchange_device": 0, "maybe_exchange_device": 0, "synchronize": None, "get_raw_stream": 0,
        "get_device_properties": H100, "set_device": None, "is_bf16_supported": True, "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }, staticmethod)  # fmt: skip
    answer(CudaInterface.Worker, {"get_device_properties": H100, "current_device": 0, "set_device": None}, staticmethod)
    properties = {
        "max_shared_mem": H100.shared_memory_per_block_optin, "multiprocessor_count": 132, "max_num_regs": 65536,
        "warpSize": 32, "sm_clock_rate": H100.clock_rate, "mem_clock_rate": H100.memory_clock_rate,
        "mem_bus_width": H100.memory_bus_width,
    }  # fmt: skip
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device=0: 0,
            get_active_torch_device=lambda: torch.device("cuda", 0),
            is_active=lambda: True,
            utils=SimpleNamespace(load_binary=None, get_device_properties=lambda device: properties),
        )
    )
    answer(support, {"has_triton": True, "has_triton_package": True})
    config.compile_threads, config.fx_graph_cache = 1, False
    functorch.enable_autograd_cache = False
    config.triton.autotune_at_compile_time = False
    config.triton.descriptive_names = "original_aten"
    answer(fake_tensor, {"init_gpu_context": None})
    answer(reinplace, {"canonicalize_view_scatter_ops": None})

    def memory_format(images: Tensor, weight: Tensor, backend: object) -> torch.memory_format:
        """What cuDNN answers: channels_last if either is."""
        either = any(
            x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in (images, weight)
        )
        return torch.channels_last if either else torch.contiguous_format

    torch._C._conv_determine_backend_memory_format = memory_format  # type: ignore[assignment]
