"""`python -m segtune COMMAND …`: list the commands and run one. Nothing heavy is imported for `--help`."""

import io
import os
import sys

COMMANDS = {
    "train": "fine-tune a backbone and a decoder on images and masks",
    "check": "find errors in a data set before training on it",
    "plan": "show what each training phase trains, freezes and costs, without data",
    "taps": "show the layers of a backbone: names, receptive fields and costs",
    "probe": "score each layer with a linear classifier on your masks, and recommend taps",
    "evaluate": "score a checkpoint on a split, at the images' original size",
    "predict": "write masks for images, folders, videos or a camera",
    "export": "write a checkpoint as ONNX or as a torch.export program",
    "report": "write a leaderboard of the runs in a folder",
    "cache": "list or remove the features of frozen layers that are kept for all runs",
}

USAGE = """segtune fine-tunes a pretrained backbone for binary segmentation.

usage: python -m segtune COMMAND [setting=value …]

commands:
{commands}

python -m segtune COMMAND --help shows the settings of a command.
python -m segtune --version shows the version.

A first run, on built-in data:
  python -m segtune train backbone=xception"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return 0, 1 if it failed, 2 for an error the user can fix, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character gets a question mark
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk behind it
        if error.filename is not None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"segtune: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())))
        return 0
    if command == "--version":
        from segtune.version import __version__

        print(f"segtune {__version__}")
        return 0
    if command not in COMMANDS:
        from segtune.errors import nearest

        hint = nearest(command, COMMANDS) or f" The commands are {', '.join(COMMANDS)}."
        if inside := next((each for each in rest if each in COMMANDS), ""):
            hint = f" The command comes first: python -m segtune {inside} …"
        print(f"segtune: there is no command '{command}'.{hint}", file=sys.stderr)
        return 2
    from segtune.cli.help import asks_for_help, print_help

    if asks_for_help(rest):
        print_help(command)
        return 0
    from segtune.cli import main as cli

    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    return cli.main(command, rest, full_errors=full)


if __name__ == "__main__":
    sys.exit(main())
