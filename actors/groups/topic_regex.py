"""Regular expressions of subscriptions, in RE2's syntax, matched against whole topic names in bounded time.

Owns: `TopicRegex`. It walks all ways through the expression at once and never back (Thompson), and remembers where each
set of ways leads by which character, so a name mostly costs a look-up per character. Python's `re` goes back and may
need time exponential in the length of a name; RE2 itself is a dependency of a few megabytes.
May fail with InvalidRegex: it is no expression of RE2's, or one that is too large, or would take too long; whoever
subscribes is told so. The coordinator is held for no longer than `STEPS_MAX` steps.
Characters are those that topic names are made of; others in an expression match nothing. Flags `m`, `s` and `U` change
nothing here. Unicode scripts (`\\p{Greek}`) and `\\C` are refused.
Source: RE2's syntax; Kafka TopicRegexResolver (re2j, `matches`); R. Cox, "Regular Expression Matching Can Be Simple
And Fast".
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

ALPHABET = frozenset(string.ascii_letters + string.digits + "._-")
WORD = frozenset(string.ascii_letters + string.digits + "_")
PATTERN_LENGTH_MAX = 5_000
NESTING_MAX = 100
REPEAT_MAX = 1_000  # RE2's
SIZE_MAX = 2_000  # of the program
STEPS_MAX = 200_000  # of one call: about 0.1 s

_CLASSES = {
    "d": frozenset(string.digits), "w": WORD, "s": frozenset(),
    "alnum": WORD - {"_"}, "alpha": frozenset(string.ascii_letters), "ascii": ALPHABET, "blank": frozenset(),
    "cntrl": frozenset(), "digit": frozenset(string.digits), "graph": ALPHABET, "lower": frozenset(string.ascii_lowercase),
    "print": ALPHABET, "punct": frozenset("._-"), "space": frozenset(), "upper": frozenset(string.ascii_uppercase),
    "word": WORD, "xdigit": frozenset(string.hexdigits),
}  # fmt: skip
_ESCAPES = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


class InvalidRegex(ValueError):
    """Its text is the reason, in RE2's words where it has them."""


class Chars(NamedTuple):
    """One character out of these."""

    chars: frozenset[str]


class At(NamedTuple):
    """A place between characters. where: "begin", "end", "boundary", "inside"."""

    where: str


class Sequence(NamedTuple):
    parts: list[Node]


class Either(NamedTuple):
    choices: list[Node]


class Repeat(NamedTuple):
    """most: None for any number."""

    part: Node
    least: int
    most: int | None


Node = Chars | At | Sequence | Either | Repeat


class Fork(NamedTuple):
    """In a program: go on in both places."""

    one: int
    other: int


class TopicRegex:
    """Raises InvalidRegex."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > PATTERN_LENGTH_MAX:
            raise InvalidRegex(f"longer than {PATTERN_LENGTH_MAX} characters")
        self._program: list[Chars | At | Fork | None] = []  # each goes on with the next, but for forks; None: matched
        self._emitted = 0
        self._emit(_Parser(pattern).parse())
        self._program.append(None)
        self._numbers: dict[_State, int] = {}
        self._states: list[_State] = []
        self._known: dict[tuple[int, str], int] = {}
        self._accepts: dict[int, bool] = {}
        self._steps = 0

    def matching(self, names: Iterable[str]) -> set[str]:
        """Those of the names that match as a whole. Raises InvalidRegex if that takes too long."""
        self._steps = 0
        return {name for name in names if self._matches(name)}

    def _matches(self, name: str) -> bool:
        number = self._number(_State(frozenset((0,)), None))
        for char in name:
            following = self._known.get((number, char))
            if following is None:
                following = self._known[number, char] = self._follow(number, char)
            number = following
        accepts = self._accepts.get(number)
        if accepts is None:
            ends = self._reach(self._states[number], None)
            accepts = self._accepts[number] = any(self._program[place] is None for place in ends)
        return accepts

    def _follow(self, number: int, char: str) -> int:
        places = self._reach(self._states[number], char)
        on = frozenset(place + 1 for place in places if char in self._chars(place))
        return self._number(_State(on, char in WORD))

    def _number(self, state: _State) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number

    def _chars(self, place: int) -> frozenset[str]:
        instruction = self._program[place]
        return instruction.chars if isinstance(instruction, Chars) else frozenset()

    def _reach(self, state: _State, char: str | None) -> set[int]:
        """Where one can be without taking a character; `char` (None: the end) is the next one."""
        reached = set(state.places)
        todo = list(state.places)
        while todo:
            self._steps += 1
            place = todo.pop()
            instruction = self._program[place]
            if isinstance(instruction, Fork):
                on = [instruction.one, instruction.other]
            else:
                on = [place + 1] if isinstance(instruction, At) and _holds(instruction, state.after_word, char) else []
            todo += [each for each in on if each not in reached]
            reached.update(on)
        if self._steps > STEPS_MAX:
            raise InvalidRegex("it takes too many steps")
        return reached

    # -- the program -------------------------------------------------------------------------------

    def _emit(self, node: Node) -> None:
        self._emitted += 1
        if max(self._emitted, len(self._program)) > SIZE_MAX:
            raise InvalidRegex("expression too large")
        if isinstance(node, Chars | At):
            self._program.append(node)
        elif isinstance(node, Sequence):
            for part in node.parts:
                self._emit(part)
        elif isinstance(node, Either):
            self._emit_either(node.choices)
        else:
            self._emit_repeat(node)

    def _emit_either(self, choices: list[Node]) -> None:
        """fork A else; A; go to the end; else: ..."""
        exits = []
        for choice in choices[:-1]:
            fork = self._reserve()
            self._emit(choice)
            exits.append(self._reserve())
            self._program[fork] = Fork(fork + 1, len(self._program))
        self._emit(choices[-1])
        for place in exits:
            self._program[place] = Fork(len(self._program), len(self._program))

    def _emit_repeat(self, node: Repeat) -> None:
        for _ in range(node.least):
            self._emit(node.part)
        if node.most is None:
            fork = self._reserve()
            self._emit(node.part)
            self._program.append(Fork(fork, fork))
            self._program[fork] = Fork(fork + 1, len(self._program))
            return
        forks = []
        for _ in range(node.most - node.least):
            forks.append(self._reserve())
            self._emit(node.part)
        for fork in forks:
            self._program[fork] = Fork(fork + 1, len(self._program))

    def _reserve(self) -> int:
        self._program.append(Fork(0, 0))
        return len(self._program) - 1


class _State(NamedTuple):
    """Places in the program, before a character is seen. after_word: what the last one was; None at the beginning."""

    places: frozenset[int]
    after_word: bool | None


def _holds(at: At, after_word: bool | None, char: str | None) -> bool:
    if at.where == "begin":
        return after_word is None
    if at.where == "end":
        return char is None
    on_boundary = bool(after_word) != (char is not None and char in WORD)
    return on_boundary == (at.where == "boundary")


class _Parser:
    """By recursive descent: choices, sequences, repetitions, atoms."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.position = 0
        self.depth = 0
        self.fold = False  # case does not matter

    def parse(self) -> Node:
        node = self._either()
        if self.position < len(self.text):
            raise InvalidRegex("unexpected )")
        return node

    def _at(self, prefix: str) -> bool:
        return self.text.startswith(prefix, self.position)

    def _take(self, prefix: str) -> bool:
        if not self._at(prefix):
            return False
        self.position += len(prefix)
        return True

    def _next(self, missing: str) -> str:
        if self.position == len(self.text):
            raise InvalidRegex(missing)
        self.position += 1
        return self.text[self.position - 1]

    def _until(self, end: str, missing: str) -> str:
        found = self.text.find(end, self.position)
        if found < 0:
            raise InvalidRegex(missing)
        taken, self.position = self.text[self.position:found], found + len(end)
        return taken

    def _either(self) -> Node:
        """Flags that are set inside hold to its end."""
        fold = self.fold
        choices = [self._sequence()]
        while self._take("|"):
            choices.append(self._sequence())
        self.fold = fold
        return choices[0] if len(choices) == 1 else Either(choices)

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.position < len(self.text) and not self._at("|") and not self._at(")"):
            parts.append(self._repeated(self._atom()))
        return Sequence(parts)

    def _repeated(self, part: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return part
        self._take("?")  # how much is taken does not matter to whether all of it matches
        if self._bounds() is not None:
            raise InvalidRegex("invalid nested repetition operator")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        end = self.text.find("}", self.position)
        if not self._at("{") or end < 0:
            return None
        low, comma, high = self.text[self.position + 1:end].partition(",")
        if not _is_number(low) or (high and not _is_number(high)):
            return None  # braces that stand for themselves
        least, most = int(low[:5]), int(high[:5]) if high else None if comma else int(low[:5])
        if least > REPEAT_MAX or (most is not None and not least <= most <= REPEAT_MAX):
            raise InvalidRegex("invalid repeat count")
        self.position = end + 1
        return least, most

    def _atom(self) -> Node:
        char = self._next("")
        if char in "*+?":
            raise InvalidRegex("missing argument to repetition operator")
        if char == "(":
            return self._group()
        if char == "[":
            return Chars(self._folded(self._set()))
        if char == ".":
            return Chars(ALPHABET)
        if char in "^$":
            return At("begin" if char == "^" else "end")
        if char == "\\":
            return self._escaped_atom()
        return Chars(self._folded(frozenset(char)))

    def _group(self) -> Node:
        self.depth += 1
        if self.depth > NESTING_MAX:
            raise InvalidRegex("expression nests too deeply")
        fold = self.fold
        if self._take("?P<") or (self._at("?<") and not self._at("?<=") and not self._at("?<!") and self._take("?<")):
            name = self._until(">", "invalid named capture")
            if not name or not all(char in WORD for char in name):
                raise InvalidRegex("invalid named capture")
        elif self._take("?") and self._flags():
            self.depth -= 1
            return Sequence([])  # (?i): for what follows
        node = self._either()
        self.fold = fold
        if not self._take(")"):
            raise InvalidRegex("missing closing )")
        self.depth -= 1
        return node

    def _flags(self) -> bool:
        """The rest of `(?flags)` or `(?flags:`. True for the former."""
        on = True
        while True:
            char = self._next("missing closing )")
            if char in ":)":
                return char == ")"
            if char == "-" and on:
                on = False
            elif char == "i":
                self.fold = on
            elif char not in "msU":
                raise InvalidRegex("invalid or unsupported Perl syntax")

    def _escaped_atom(self) -> Node:
        for sign, where in (("A", "begin"), ("z", "end"), ("b", "boundary"), ("B", "inside")):
            if self._take(sign):
                return At(where)
        if self._take("Q"):
            end = self.text.find("\\E", self.position)
            literal = self.text[self.position:] if end < 0 else self.text[self.position:end]
            self.position += len(literal) + (2 if end >= 0 else 0)
            return Sequence([Chars(self._folded(frozenset(char))) for char in literal])
        return Chars(self._folded(self._escaped()))

    def _escaped(self) -> frozenset[str]:
        """What stands behind a backslash, in a set or outside."""
        char = self._next("trailing backslash at end of expression")
        if char in "dws":
            return _CLASSES[char]
        if char in "DWS":
            return ALPHABET - _CLASSES[char.lower()]
        if char in "pP":
            found = self._category()
            return ALPHABET - found if char == "P" else found
        if char == "x":
            digits = self._until("}", "invalid escape sequence") if self._take("{") else self._next("") + self._next("")
            return frozenset(_chr(digits, 16))
        if char in "01234567":
            # A digit alone would be a back-reference, which RE2 has not.
            digits = char
            while len(digits) < 3 and self.text[self.position:self.position + 1] in tuple("01234567"):
                digits += self._next("")
            if char != "0" and len(digits) == 1:
                raise InvalidRegex("invalid escape sequence")
            return frozenset(_chr(digits, 8))
        if char in _ESCAPES:
            return frozenset(_ESCAPES[char])
        if char in WORD and char != "_":
            raise InvalidRegex("invalid escape sequence")
        return frozenset(char)

    def _category(self) -> frozenset[str]:
        name = self._until("}", "invalid character class range") if self._take("{") else self._next("")
        wanted = name.removeprefix("^")
        found = frozenset(char for char in ALPHABET if unicodedata.category(char).startswith(wanted))
        if wanted not in _CATEGORIES:
            raise InvalidRegex("invalid character class range")
        return ALPHABET - found if wanted != name else found

    def _set(self) -> frozenset[str]:
        negated = self._take("^")
        found: frozenset[str] = frozenset()
        first = True
        while first or not self._at("]"):
            first = False
            found |= self._set_item()
        self.position += 1
        found = self._folded(found)
        return ALPHABET - found if negated else found & ALPHABET

    def _set_item(self) -> frozenset[str]:
        missing = "missing closing ]"
        if self._at("[:") and ":]" in self.text[self.position:]:
            self.position += 2
            name = self._until(":]", missing)
            if name.removeprefix("^") not in _CLASSES or len(name) < 4:
                raise InvalidRegex("invalid character class range")
            found = _CLASSES[name.removeprefix("^")]
            return ALPHABET - found if name.startswith("^") else found
        low = self._set_char(missing)
        if len(low) != 1 or not self._at("-") or self._at("-]"):
            return low
        self.position += 1
        high = self._set_char(missing)
        if len(high) != 1 or min(high) < min(low):
            raise InvalidRegex("invalid character class range")
        return frozenset(char for char in ALPHABET if min(low) <= char <= min(high))

    def _set_char(self, missing: str) -> frozenset[str]:
        char = self._next(missing)
        return self._escaped() if char == "\\" else frozenset(char)

    def _folded(self, chars: frozenset[str]) -> frozenset[str]:
        return chars | {char.swapcase() for char in chars} if self.fold else chars


_CATEGORIES = frozenset({
    "L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Cs", "Co"})  # fmt: skip


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _chr(digits: str, base: int) -> str:
    try:
        return chr(int(digits, base))
    except (ValueError, OverflowError):
        raise InvalidRegex("invalid escape sequence") from None
