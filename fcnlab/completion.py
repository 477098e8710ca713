"""``python -m fcnlab.completion``: the lines by which a shell completes the words of fcnlab."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

CANDIDATES = "candidates"
"""The word behind which a shell asks what its last word may become."""

# Readline replaces what follows the last = or : of a word, where these part words.
BASH = """\
_fcnlab() {
    local line="${COMP_LINE:0:COMP_POINT}" kept="" found
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local word="${words[${#words[@]}-1]}"
    [[ "$COMP_WORDBREAKS" == *=* ]] && kept="${word%"${word##*[=:]}"}"
    COMPREPLY=()
    while IFS= read -r found; do
        [[ "$found" == *[=.] ]] || found+=" "
        COMPREPLY+=("${found#"$kept"}")
    done < <("${words[0]}" completion candidates -- "${words[@]:1}" 2>/dev/null)
}
complete -o nospace -o default -F _fcnlab fcnlab
"""

ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_fcnlab() {
    local -a whole begun
    local found
    for found in "${(@f)$("${words[1]}" completion candidates -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $found == *[=.] ]]; then begun+=("$found"); elif [[ -n $found ]]; then whole+=("$found"); fi
    done
    if (( $#whole + $#begun )); then
        compadd -S '' -a begun
        compadd -a whole
    else
        compset -P '*='
        _files
    fi
}
compdef _fcnlab fcnlab
"""

FISH = """\
function __fcnlab_candidates
    set -l words (commandline -opc)
    $words[1] completion candidates -- $words[2..] (commandline -ct) 2>/dev/null
end
complete -c fcnlab -a '(__fcnlab_candidates)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""What each shell is given to run."""

_FIRST = {"completion": list(SCRIPTS), "prepare": ["check"], "track": ["sync"], "verify": ["bundle"]}
"""The words without = that may stand right behind a command."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print a shell's lines, or the candidates for the last of some words.

    Args:
        argv: The words behind the name of the command; None for those of the command line.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:2] == [CANDIDATES, "--"]:
        print("".join(f"{found}\n" for found in _candidates(given[2:] or [""])), end="")
        return
    print(SCRIPTS[_parser().parse_args(given).shell], end="")


def _candidates(words: Sequence[str]) -> list[str]:
    """Return what the last of the words behind ``fcnlab`` may become."""
    from fcnlab.config import candidates
    from fcnlab.config.command_names import BUNDLE_KEYS, COMMANDS, VERIFY_KEYS
    from fcnlab.config.schema import COMMANDS as CONFIGURED

    command, *rest = words
    if not rest:
        return sorted(name for name in [*COMMANDS, "--help", "--version"] if name.startswith(command))
    first = _FIRST.get(command, []) if len(rest) == 1 else []
    found = [name for name in first if name.startswith(rest[-1])]
    if command in CONFIGURED:
        return sorted([*found, *candidates.candidates(command, rest)])
    more = ["--uri"] if command in ("track", "doctor") and rest[-1].startswith("-") else []
    if command == "verify":
        more = [f"{key}=" for key in (BUNDLE_KEYS if rest[0] == "bundle" and len(rest) > 1 else VERIFY_KEYS)]
    return sorted([*found, *(name for name in more if name.startswith(rest[-1]))])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fcnlab completion", description=__doc__.partition(": ")[2])
    parser.add_argument("shell", choices=list(SCRIPTS), help='the shell, as in: eval "$(fcnlab completion bash)"')
    return parser


if __name__ == "__main__":
    main()
