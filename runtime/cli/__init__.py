"""The command line: noun then verb. Data on stdout, everything else on stderr; exit code 1 for a failure, 2 for wrong usage.

Owns: the tree of commands and what becomes of errors. Each command is imported when it is used, so that `zafka up`
starts quickly; whatever the user can mend ends as one message without a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import ClassVar

import click
from click.core import ParameterSource

COMMANDS = {
    "up": "zafka.runtime.cli.up:up",
    "status": "zafka.runtime.cli.status:status",
    "topic": "zafka.runtime.cli.topic:topic",
    "produce": "zafka.runtime.cli.produce:produce",
    "consume": "zafka.runtime.cli.consume:consume",
    "group": "zafka.runtime.cli.group:group",
    "config": "zafka.runtime.cli.config:config",
    "log": "zafka.runtime.cli.log:log",
    "doctor": "zafka.runtime.cli.doctor:doctor",
    "chaos": "zafka.runtime.cli.chaos:chaos",
    "demo": "zafka.runtime.cli.demo:demo",
    "bench": "zafka.runtime.cli.bench:bench",
    "completion": "zafka.runtime.cli.completion:completion",
}
NOT_BUILT = {
    "cluster": "one machine is all there is",
    "broker": "brokers come and go with the topology file",
}

# What users can mend, by module, so that an error's module need not be imported to be recognised.
OUR_ERRORS = (
    ("zafka.runtime.errors", "RuntimeFault"),
    ("zafka.client.errors", "ZafkaError"),
    ("zafka.storage.errors", "StorageError"),
    ("zafka.testing", "BrokerFailed"),
)
INTERRUPTED = 130
COMPLETE_VARIABLE = "_ZAFKA_COMPLETE"  # click's, set by a shell that wants a word completed


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if context.resilient_parsing:  # a shell completes
            return super().resolve_command(context, arguments)
        if name in NOT_BUILT:
            context.fail(f"`zafka {name}` is not supported yet: {NOT_BUILT[name]}")
        if name not in COMMANDS and not name.startswith("-"):
            context.fail(f"there is no command {name!r}{nearest(name, COMMANDS)}")
        return super().resolve_command(context, arguments)


class NounGroup(click.Group):
    """A noun; its verbs are its commands. not_built: verbs that come later, and what does for now."""

    not_built: ClassVar[dict[str, str]] = {}

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if context.resilient_parsing:
            return super().resolve_command(context, arguments)
        if arguments[0] in self.not_built:
            context.fail(f"`zafka {self.name} {arguments[0]}` is not supported yet: {self.not_built[arguments[0]]}")
        if arguments[0] not in self.commands and not arguments[0].startswith("-"):
            context.fail(f"there is no `zafka {self.name} {arguments[0]}`{nearest(arguments[0], self.commands)}")
        return super().resolve_command(context, arguments)


def nearest(name: str, known: Iterable[str]) -> str:
    from zafka.runtime.yaml_file import did_you_mean

    return did_you_mean(name, list(known)) or f"; there are: {', '.join(known)}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="zafka", message="%(prog)s %(version)s")
def zafka() -> None:
    """The Kafka you can pip install."""


def our_errors() -> tuple[type[BaseException], ...]:
    """The classes in OUR_ERRORS whose modules are loaded; others cannot have been raised."""
    return tuple(
        getattr(sys.modules[module], name) for module, name in OUR_ERRORS if module in sys.modules
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if COMPLETE_VARIABLE in os.environ:
        importlib.import_module("zafka.runtime.cli.completion")  # so that click knows our bash
    try:
        result = zafka.main(list(sys.argv[1:] if arguments is None else arguments), "zafka", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        help_wanted.show()
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        print(f"zafka: {error.format_message()}{_environment_hint(error, context)}", file=sys.stderr)
        if isinstance(error, click.UsageError) and context is not None:
            print(f"Try '{context.command_path} --help'.", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        print(f"zafka: interrupted{_notes(error.__cause__ or error)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except our_errors() as error:
        print(f"zafka: {error}{_notes(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        print(f"zafka: {error.strerror or error}{place}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def _notes(error: BaseException) -> str:
    """What was added to an error on its way up."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _environment_hint(error: click.ClickException, context: click.Context | None) -> str:
    """Where a wrong value of an option came from, if it was not the command line."""
    option = getattr(error, "param", None)
    if context is None or option is None or option.name is None:
        return ""
    if context.get_parameter_source(option.name) is not ParameterSource.ENVIRONMENT:
        return ""
    return f" (from {option.envvar} in the environment)"
