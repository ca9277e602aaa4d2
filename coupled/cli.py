"""The command line `coupled COMMAND`: the commands, with the modules of their parsers and programs."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coupled.config.by_name import did_you_mean
from coupled.config.command_line import Parser, command_parser
from coupled.monitoring.commands import suggest
from coupled.monitoring.terminal import prepare_terminal, say


@dataclass(frozen=True)
class Command:
    """A command. `parser` and `program` are "module:function"; `--help` imports only the module of the parser."""

    summary: str
    parser: str
    program: str


def _analysis(summary: str, name: str, module: str = "") -> Command:
    return Command(summary, f"coupled.analysis.parsers:{name}", f"coupled.analysis.{module or name}:main")


COMMANDS = {
    "train": Command(
        "train all arms of a run in lockstep", "coupled.config.train_options:parser", "coupled.train:main"
    ),
    "weight-gap": _analysis("distances between the arms' weights", "weight_gap"),
    "alignment": _analysis("similarity of the arms' representations (CKA, RSA, ...)", "alignment"),
    "quality": _analysis("quality of each arm's representation (probes, few-shot, ...)", "quality"),
    "linear-evaluation": Command(
        "linear classifiers trained on augmented views of frozen networks",
        "coupled.analysis.probe_parsers:linear_evaluation",
        "coupled.analysis.linear_evaluation:main",
    ),
    "pretext": Command(
        "what h and z know of rotations, colours and corruptions of the image",
        "coupled.analysis.probe_parsers:pretext",
        "coupled.analysis.pretext:main",
    ),
    "calibration": Command(
        "reliability curves of each arm's classifier and of a linear probe",
        "coupled.analysis.classifier_parsers:calibration",
        "coupled.analysis.calibration:main",
    ),
    "robustness": Command(
        "errors on corrupted images, and mean corruption errors",
        "coupled.analysis.classifier_parsers:robustness",
        "coupled.analysis.robustness:main",
    ),
    "collapse": _analysis("dimensional collapse of each arm's representation", "collapse"),
    "losses": _analysis("contrastive losses of every arm", "losses"),
    "bounds": _analysis("the papers' bounds, compared with measured values", "bounds"),
    "verify": _analysis("check the files of a run, or compare two runs", "verify"),
    "figures": Command(
        "figures of one run or several runs",
        "coupled.analysis.output_parsers:figures",
        "coupled.analysis.figures:main",
    ),
    "report": _analysis("an HTML page of one run or several runs", "report", "report.program"),
    "merge": Command(
        "accuracy of the weights between two arms",
        "coupled.analysis.output_parsers:merge",
        "coupled.analysis.merge:main",
    ),
    "barrier": Command(
        "losses of the weights between two arms, and the barrier between them",
        "coupled.analysis.output_parsers:barrier",
        "coupled.analysis.barrier:main",
    ),
    "gradients": Command(
        "gradient of the contrastive losses against the hardness of pairs",
        "coupled.analysis.output_parsers:gradients",
        "coupled.analysis.gradients:main",
    ),
    "embed": Command(
        "embeddings of any images, and two-dimensional maps of them",
        "coupled.analysis.output_parsers:embed",
        "coupled.analysis.embed:main",
    ),
    "export": Command(
        "an arm's encoder for timm, torchvision, ONNX or Hugging Face",
        "coupled.analysis.output_parsers:export",
        "coupled.analysis.export:main",
    ),
    "directpred-theory": Command(
        "the linear model of DirectPred: fixed points, phase portrait, sweep",
        "coupled.analysis.theory_parsers:directpred_theory",
        "coupled.analysis.directpred_theory:main",
    ),
    "similarity-descent": Command(
        "gradient descent on similarities for CL and NSCL, with the a-priori bound",
        "coupled.analysis.theory_parsers:similarity_descent",
        "coupled.analysis.similarity_descent:main",
    ),
    "sweep": Command(
        "train and measure a run for each point of a grid", "coupled.sweep.parser:parser", "coupled.sweep.program:main"
    ),
    "prepare-data": Command(
        "unpack the archives of a dataset", "coupled.prepare_data:parser", "coupled.prepare_data:main"
    ),
    "import-checkpoints": Command(
        "make a run folder from checkpoints of other programs",
        "coupled.import_checkpoints:parser",
        "coupled.import_checkpoints:main",
    ),
    "check-objective": Command(
        "check an objective, built-in or user-defined",
        "coupled.check_objective:parser",
        "coupled.check_objective:main",
    ),
    "list": Command(
        "list the settings, or the names of objectives, datasets, metrics or encoders",
        "coupled.cli:list_parser",
        "coupled.cli:list_names",
    ),
}

ANALYSES = (
    *("weight-gap", "alignment", "quality", "linear-evaluation", "pretext", "calibration", "robustness", "collapse"),
    *("losses", "bounds", "merge", "barrier", "gradients", "verify", "figures", "report"),
)

LISTS = {
    "objectives": ("coupled.objectives",),
    "datasets": ("coupled.datasets",),
    "metrics": ("coupled.metrics.pair", "coupled.metrics.arm"),
    "encoders": (),
    "settings": (),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in ("-h", "--help"):
        say_lines(overview())
        return 0
    if name == "--version":
        from coupled._version import version

        say(f"coupled {version()}")
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        say(f"coupled: unknown command '{name}'{hint} (known: {', '.join(COMMANDS)})", sys.stderr)
        return 2
    command = COMMANDS[name]
    if not {"-h", "--help"}.isdisjoint(rest):
        say_lines(imported(command.parser)().format_help())
        return 0
    prepare_terminal()
    return int(imported(command.program)(rest))


def imported(place: str) -> Any:
    """Import and return "module:function"."""
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


def overview() -> str:
    """Return the help of `coupled`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: coupled COMMAND [options]    coupled COMMAND --help    coupled --version",
            "",
            "Train contrastive and supervised objectives in lockstep, and measure how far they drift.",
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            f"  {suggest('train', 'demo')}",
            f"  {suggest('weight-gap', '--compare', 'nscl')}",
            "",
            "files written:",
            "  runs/<name>/            by train: settings, logs, snapshots of every epoch",
            "  runs/<name>/analysis/   by the analyses: CSV files, figures, report.html",
        ]
    )


def say_lines(text: str) -> None:
    """Print each line of a text."""
    for line in text.rstrip().split("\n"):
        sys.stdout.write(f"{line}\n")


def list_parser() -> Parser:
    """Return the parser of `coupled list`."""
    about = (
        "List the names of objectives, datasets, metrics or encoders, one per line, or the keys of a settings file\n"
        "with default, type and meaning."
    )
    result = command_parser("list", about, ["objectives", "settings optimizer"], ["none"])
    result.add_argument("kind", choices=tuple(LISTS), help="what to list")
    result.add_argument("section", nargs="?", help="of settings: list only this section or key")
    return result


def list_names(arguments: Sequence[str] | None = None) -> int:
    """Run `coupled list` and return its exit status."""
    from coupled.config.by_name import known
    from coupled.config.errors import report_error
    from coupled.monitoring.terminal import imports_done

    parser = list_parser()
    try:
        options = parser.parse_args(arguments)
        imports_done()
        if options.section is not None and options.kind != "settings":
            raise ValueError(f"section: got '{options.section}'; only settings have sections")
        if options.kind == "encoders":
            import timm

            from coupled.config.encoder_settings import LINEAR

            names = [LINEAR, *timm.list_models()]
        elif options.kind == "settings":
            from coupled.config.key_descriptions import listed

            names = listed(options.section)
        else:
            names = [name for package in LISTS[options.kind] for name in known(package)]
    except ValueError as error:
        return report_error(parser.prog, error)
    say_lines("\n".join(names))
    return 0
