"""fastnoise env: what fastnoise would run on."""

from collections.abc import Sequence

from ..errors import ConfigError
from ..texts import counted

HELP = """usage: fastnoise env

Prints versions, devices, SIMD level, where times of steps are kept, and the
backend of every op.
"""


def run(arguments: Sequence[str]) -> int:
    """Print what fastnoise would run on; ConfigError for any option."""
    if any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0
    if arguments:
        raise ConfigError(f"fastnoise env takes no options, found {arguments[0]!r}")
    from ..engine import describe_environment
    from ..engine.payback import StepTimes

    facts = describe_environment()
    versions = {"fastnoise": facts["fastnoise"], "python": facts["python"]} | facts["packages"]
    for name, version in versions.items():
        print(f"{name:<22}{version or 'not installed'}")
    print(f"{'platform':<22}{facts['platform']}")
    print(
        f"{'cpu':<22}{counted(facts['cpus'], 'core')}, {counted(facts['torch_threads'], 'torch thread')}, "
        f"SIMD {facts['simd']}"
    )
    for number, gpu in enumerate(facts["gpus"]):
        capability = gpu["compute_capability"]
        print(f"{f'cuda:{number}':<22}{gpu['name']}, {gpu['memory_gib']} GiB, compute capability {capability}")
    if not facts["gpus"]:
        print(f"{'gpu':<22}none")
    times = StepTimes()
    print(f"{'step times':<22}{times.count()} measured, in {times.path or 'no file: the user has no home'}")
    for name, backends in facts["ops"].items():
        print(f"{f'op {name}':<22}{', '.join(f'{device}: {backend}' for device, backend in backends.items())}")
    return 0
