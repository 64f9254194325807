"""`zafka completion bash|zsh|fish`, and the names that completion asks a running cluster for.

Owns: what click leaves to us. It completes commands, options and choices by itself (a shell calls `zafka` with
_ZAFKA_COMPLETE set); topics and groups are asked for at the address on the line, or in the environment.
Nothing fails and nothing is printed: a shell that completes has no place for words, so no cluster means no names.
"""

from __future__ import annotations

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    get_completion_class,
)

from zafka.runtime.cli import COMPLETE_VARIABLE, zafka

ASK_S = 1.0  # who presses Tab waits for it


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, and names of topics and groups.

    \b
    bash:  echo 'eval "$(zafka completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(zafka completion zsh)"' >> ~/.zshrc
    fish:  zafka completion fish > ~/.config/fish/completions/zafka.fish
    """
    made = get_completion_class(shell)
    assert made is not None, shell
    click.echo(made(zafka, {}, "zafka", COMPLETE_VARIABLE).source(), nl=False)


@add_completion_class
class Bash(BashComplete):
    """bash takes the colons of an address for ends of words; here an address is one word again."""

    before = ""  # what of the incomplete word bash takes for words of their own

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        words = join_at_colons(words)
        if words and words[-1].endswith(":"):
            self.before = words.pop()
        return words, self.before + incomplete

    def format_completion(self, item: CompletionItem) -> str:
        item.value = item.value.removeprefix(self.before)
        return super().format_completion(item)


@add_completion_class
class Fish(FishComplete):
    """A description may have commas; click's script cuts it at the first."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


def join_at_colons(words: list[str]) -> list[str]:
    """["tcp", ":", "//localhost", ":", "9290"] is one word. Pure."""
    joined: list[str] = []
    for word in words:
        if joined and (word.startswith(":") or joined[-1].endswith(":")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def topic_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For `shell_complete` of a topic."""
    return [name for name in ask(context, groups=False) if name.startswith(incomplete)]


def group_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For `shell_complete` of a group."""
    return [name for name in ask(context, groups=True) if name.startswith(incomplete)]


def ask(context: click.Context, *, groups: bool) -> list[str]:
    from zafka.client.admin import Admin
    from zafka.client.errors import ZafkaError

    try:
        with Admin(context.params.get("bootstrap"), bootstrap_timeout=ASK_S, api_timeout=ASK_S) as admin:
            return [each.group_id for each in admin.list_groups()] if groups else admin.list_topics()
    except (ZafkaError, OSError):
        return []
