"""What is wrong with a recipe as text: the key, its value, what is allowed, the nearest key."""

import difflib
import inspect
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from synth_ct.kit.quarantine import printable

Part = int | str

MUST = {
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "finite_number": "be finite",
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "string_type": "be text",
    "tuple_type": "be a list",
    "model_type": "be a table",
    "dict_type": "be a table",
    "mapping_type": "be a table",
}
"""Where pydantic speaks of its own types. Of the rest it speaks plainly."""
NUMBERS = ("greater_than", "less_than", "multiple_of", "int_", "float_", "finite")
"""How the errors begin to which the allowed range belongs."""


class Kind(NamedTuple):
    """One of the things that may stand at a place of a recipe."""

    type: Any
    about: tuple[Any, ...]
    """Its bounds, and its tag where it is one of several."""

    @property
    def fields(self) -> frozenset[str]:
        """Keys of its table, if it is one."""
        return frozenset(self.type.model_fields) if _is_table(self.type) else frozenset()

    @property
    def tags(self) -> list[str]:
        """What tells it from the others."""
        return [each.tag for each in self.about if isinstance(each, Tag)]


class Place(NamedTuple):
    """Where an error is, as a person finds it."""

    keys: tuple[Part, ...]
    kinds: tuple[Kind, ...]
    beside: tuple[Kind, ...]
    """The same, and what else could have stood there."""


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """Every fault in one line."""
    return "; ".join(_fault(each, model) for each in error.errors(include_url=False))


def unknown(where: Iterable[Part], key: Part, names: Iterable[str], others: Iterable[str]) -> str:
    """A key that is none, and the nearest that is: of this table first, then of `others`."""
    near = difflib.get_close_matches(str(key), sorted(names), n=1)
    near = near or difflib.get_close_matches(str(key), sorted({*others} - {key}), n=1)
    there = ", ".join(sorted(names)) or "none"
    hint = f"did you mean {near[0]!r}?" if near else f"there are {there}"
    return f"{_dotted((*where, key))}: unknown; {hint}"


def _fault(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        place = _walk(model, loc[:-1])
        names, others = _fields(place.kinds), _fields(place.beside)
        return unknown(place.keys, loc[-1], names, others)
    if kind == "missing":
        place = _walk(model, loc[:-1])
        return f"{_dotted((*place.keys, loc[-1]))}: missing"
    place = _walk(model, loc)
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _of_no_kind(place, error["input"])
    if kind in {"value_error", "assertion_error"}:  # our own words, which name the value
        said = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return ": ".join(filter(None, (_dotted(place.keys), said)))
    return _wrong(place.keys, error["input"], _must(error, place.kinds))


def _wrong(keys: tuple[Part, ...], value: Any, must: str) -> str:
    """A value that is none of those allowed."""
    return f"{_dotted(keys)} = {_shown(value)}: must {must}"


def _of_no_kind(place: Place, value: Any) -> str:
    """A table that does not say which of several it is."""
    if not isinstance(value, dict):
        return _wrong(place.keys, value, "be a table")
    tags = [repr(tag) for kind in place.kinds for tag in kind.tags]
    must = f"be {', '.join(tags[:-1])} or {tags[-1]}"
    if "kind" not in value:
        return f"{_dotted((*place.keys, 'kind'))}: missing; must {must}"
    return _wrong((*place.keys, "kind"), value["kind"], must)


def _must(error: ErrorDetails, kinds: Iterable[Kind]) -> str:
    """What is allowed, after `must`: in our words, else in pydantic's without its jargon."""
    bounds = " and ".join(dict.fromkeys(each for kind in kinds for each in _bounds(kind)))
    numeric = error["type"].startswith(NUMBERS)
    if numeric and bounds:
        what = MUST.get(error["type"])
        return f"{what}, {bounds}" if what else f"be {bounds}"
    plain = re.sub(r"^\w+ should ", "", error["msg"]).replace(" after validation", "")
    return MUST.get(error["type"], plain)


def _bounds(kind: Kind) -> Iterator[str]:
    """The allowed range in words."""
    for bound in kind.about:
        match bound:
            case Gt(gt):
                yield f"greater than {_shown(gt)}"
            case Ge(ge):
                yield f"at least {_shown(ge)}"
            case Lt(lt):
                yield f"less than {_shown(lt)}"
            case Le(le):
                yield f"at most {_shown(le)}"
            case MultipleOf(multiple_of):
                yield f"a multiple of {_shown(multiple_of)}"


def _shown(value: Any) -> str:
    """As a person would write it, not all of it where it is long."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return f"{value:g}"
    return reprlib.repr(value)


def _dotted(keys: Iterable[Part]) -> str:
    return ".".join(printable(str(key)) for key in keys)


# ---- where an error is -------------------------------------------------------------------------


def _walk(model: type[BaseModel], loc: Iterable[Part]) -> Place:
    """Follow pydantic's path, whose parts are keys, and names of kinds nobody ever wrote."""
    keys: list[Part] = []
    kinds = beside = [Kind(model, ())]
    for part in loc:
        if below := [under for kind in kinds for under in _below(kind, part)]:
            keys.append(part)
            kinds = beside = below
        else:
            kinds = [kind for kind in kinds if part in kind.tags] or kinds
    return Place(tuple(keys), tuple(kinds), tuple(beside))


def _below(kind: Kind, part: Part) -> list[Kind]:
    """What may stand under a key of it; nothing where it has no such key."""
    origin, arguments = get_origin(kind.type), get_args(kind.type)
    if part in kind.fields:
        return _kinds(kind.type.model_fields[part].rebuild_annotation())
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return _kinds(arguments[-1])
    if origin is tuple and isinstance(part, int):
        return _kinds(arguments[0 if Ellipsis in arguments else min(part, len(arguments) - 1)])
    return []


def _kinds(annotation: Any, about: tuple[Any, ...] = ()) -> list[Kind]:
    """The kinds of thing an annotation allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0], (*about, *arguments[1:]))
    if origin in (Union, UnionType):
        return [kind for each in arguments for kind in _kinds(each, about)]
    return [Kind(annotation, about)]


def _is_table(kind: Any) -> bool:
    return inspect.isclass(kind) and get_origin(kind) is None and issubclass(kind, BaseModel)


def _fields(kinds: Iterable[Kind]) -> frozenset[str]:
    return frozenset().union(*(kind.fields for kind in kinds))
