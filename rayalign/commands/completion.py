"""`rayalign completion`: a script that makes a shell complete commands and settings."""

from __future__ import annotations

import argparse

EPILOG = """examples:
  rayalign completion bash >> ~/.bashrc
  rayalign completion zsh >> ~/.zshrc
  rayalign completion fish > ~/.config/fish/completions/rayalign.fish
"""

BASH = """\
_rayalign() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
  elif [ "${{COMP_WORDS[1]}}" = train ] && [[ "$word" == -* ]]; then
    COMPREPLY=($(compgen -W "{settings}" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _rayalign rayalign
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH
FISH = """\
complete -c rayalign -f -n __fish_use_subcommand -a "{commands}"
for option in {settings}
  complete -c rayalign -n "__fish_seen_subcommand_from train" -l (string sub -s 3 -- $option) -r
end
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rayalign completion",
        description="Prints a script that makes a shell complete rayalign's commands, and the settings of train.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(arguments).shell
    from rayalign.commands.main import COMMANDS
    from rayalign.config import RunConfig
    from rayalign.config.leaves import settings

    names = ["--model", "--reward", "--prompts", "--config", "--dry-run"]
    names += [f"--{name}" for name, _ in settings(RunConfig) if name != "rewards"]
    print(SHELLS[shell].format(commands=" ".join(COMMANDS), settings=" ".join(names)), end="")
    return 0
