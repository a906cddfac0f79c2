"""fastnoise completion: a script that completes commands, options and their values in bash or zsh."""

from collections.abc import Iterable, Sequence

from .. import helptext
from ..errors import ConfigError, nearest
from ..studies import STUDIES
from .help import TOPICS
from .listings import lines

SHELLS = ("bash", "zsh")

HELP = """usage: fastnoise completion bash|zsh

Prints a script that completes commands, options and their values. For this shell:
  source <(fastnoise completion bash)
For every shell, put that line into ~/.bashrc, or with zsh in place of bash into
~/.zshrc, below compinit.
"""

_SCRIPT = """# fastnoise: completes commands, options and their values.
# Load it by: source <(fastnoise completion {shell})
{first}_fastnoise() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" flags="" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
        return
    fi
    if [ "$COMP_CWORD" -eq 2 ]; then
        case "$command" in
            study) words="{studies}" ;;
            help) words="{topics}" ;;
            completion) words="{shells}" ;;
        esac
    fi
    [ "$command" = study ] && command="study ${{COMP_WORDS[2]}}"
    case "$command" in
{flags}
    esac
    case "$current" in
        -*) words="$words $flags" ;;
        *)
            case " $flags " in
                *" $previous "*)
                    case "$command $previous" in
{values}
                    esac
                    ;;
            esac
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _fastnoise fastnoise
"""


def run(arguments: Sequence[str]) -> int:
    """Print the script; ConfigError for another shell."""
    if helptext.wanted(arguments) is not None:
        print(helptext.paragraphs(HELP))
        return 0
    if len(arguments) != 1:
        raise ConfigError("give the shell, as in fastnoise completion bash")
    if arguments[0] not in SHELLS:
        raise ConfigError(f"unknown shell {arguments[0]!r}; {nearest(arguments[0], list(SHELLS))}")
    print(script(arguments[0]), end="")
    return 0


def script(shell: str) -> str:
    """The script for a shell. zsh runs the same function, by its bashcompinit."""
    from . import every

    named = {
        field: [name for name in lines(kind) if ":" not in name]
        for field, kind in (("method", "methods"), ("dataset", "datasets"), ("model", "models"))
    }
    flags, values = [], []
    for command in every.commands():
        listed = [option for members in every.options(command).values() for option in members]
        known: dict[str, dict[str, None]] = {}
        for option in listed:
            for flag in option.flags:
                words = option.choices or (
                    named.get(option.name, []) if command in (*every.TRAINING, "features") else []
                )
                known.setdefault(flag, {}).update(dict.fromkeys(words))
                if option.switch:
                    known.setdefault(f"--no-{flag[2:]}", {})
        known |= {word: {} for word in (*helptext.HELP, helptext.HELP_ALL)}
        flags.append(_case(command, "flags", known))
        values += [_case(f"{command} {flag}", "words", words) for flag, words in known.items() if words]
    return _SCRIPT.format(
        shell=shell,
        first="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        commands=" ".join([*every.NAMES, "--help", "--version"]),
        studies=" ".join(STUDIES),
        topics=" ".join([*TOPICS, "options"]),
        shells=" ".join(SHELLS),
        flags="\n".join(flags),
        values="\n".join(" " * 12 + line for line in values),
    )


def _case(pattern: str, name: str, words: Iterable[str]) -> str:
    return f'        "{pattern}") {name}="{" ".join(words)}" ;;'
