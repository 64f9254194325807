"""What a form is: where an injected error stands in an answer, and how a request is parted into what fails and the rest.

Owns: `Form`, `Topics`, `split`, `add_refused`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

MESSAGE = "injected by zafka chaos"

NameOf = Callable[[bytes], str]
"""The name of a topic by its id, "" if there is none."""


class Topics(NamedTuple):
    """requested: the request's lists that name topics, of which one is used. answered: the answer's list.

    name: of the topic that an entry of the request is about, None if it is about something else.
    refuse: (entry of the request, error) -> entry of the answer. empty: an answer without entries.
    """

    requested: tuple[str, ...]
    answered: str
    name: Callable[[Any, NameOf], str | None]
    refuse: Callable[[Any, int], Any]
    empty: Callable[[], Any]


class Form(NamedTuple):
    """topics: None if the API has no topics, then whole: (request, version, error) -> the whole answer."""

    topics: Topics | None = None
    whole: Callable[[Any, int, int], Any] | None = None


class Split(NamedTuple):
    """refused: entries of the request. rest: the request without them, None if nothing is left."""

    refused: list[Any]
    rest: Any


def split(topics: Topics, request: Any, matches: Callable[[str], bool] | None, name_of: NameOf) -> Split:
    """Part a request's topics. matches: None means all of them, and what is no topic, too."""
    refused: list[Any] = []
    rest: dict[str, list[Any]] = {}
    for field in topics.requested:
        kept: list[Any] = []
        for entry in getattr(request, field) or ():
            name = topics.name(entry, name_of)
            hit = matches is None or (name is not None and matches(name))
            (refused if hit else kept).append(entry)
        rest[field] = kept
    if not any(rest.values()):
        return Split(refused, None)
    return Split(refused, msgspec.structs.replace(request, **rest))


def add_refused(topics: Topics, response: Any, refused: Sequence[Any], error: int) -> Any:
    """The answer with a place for each refused entry of the request."""
    entries = [*getattr(response, topics.answered), *(topics.refuse(entry, error) for entry in refused)]
    return msgspec.structs.replace(response, **{topics.answered: entries})
