"""Frozen dataclass configs to plain data and back, strictly: what does not fit is an error that lists all of it."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, TypeVar

from aural.errors import CheckpointError

Config = TypeVar("Config")


def config_to_dict(config: Any) -> dict[str, Any]:
    """A dataclass, nested or not, as plain dicts, lists, strings and numbers."""
    return dataclasses.asdict(config)


def config_from_dict(config_class: type[Config], values: Any, *, where: str = "config") -> Config:
    """Build a dataclass from plain data, strictly.

    Lists become tuples where the field says so, whole numbers become floats, and nothing else is converted.

    Args:
        config_class: a dataclass whose fields are bool, int, float, str, ``Literal``, tuples, lists, string-keyed
            dicts, dataclasses, or one of these or ``None``.
        values: what :func:`config_to_dict` gave, perhaps by way of JSON.
        where: how errors call the source, such as a path.

    Raises:
        CheckpointError: unknown keys, missing keys without default, wrong types, or a ``ValueError`` of the dataclass
            itself: all of them in one message.
    """
    problems: list[str] = []
    config = _build(config_class, values, "", problems)
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems)}")
    return typing.cast(Config, config)


def _build(config_class: Any, values: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(values, dict):
        problems.append(f"{prefix.rstrip('.') or 'the whole'} should be an object, not {values!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    for name in (name for name in values if name not in fields):
        close = difflib.get_close_matches(str(name), fields, n=1)
        problems.append(f"unknown key {prefix}{name}" + (f" (did you mean {close[0]}?)" if close else ""))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            problems.append(f"missing key {prefix}{name}")
    hints = typing.get_type_hints(config_class)
    known = {
        name: _convert(values[name], hints[name], f"{prefix}{name}", problems) for name in fields if name in values
    }
    if problems:
        return None
    try:
        return config_class(**known)
    except ValueError as error:
        problems.append(str(error))
        return None


def _convert(value: Any, hint: Any, name: str, problems: list[str]) -> Any:
    """``value`` as the type ``hint``; what does not fit is added to ``problems``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{name}.", problems)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [argument for argument in arguments if argument is not type(None)]
        for choice in choices[:-1]:
            attempt: list[str] = []
            converted = _convert(value, choice, name, attempt)
            if not attempt:
                return converted
        return _convert(value, choices[-1], name, problems)
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        repeated = origin is list or arguments[-1] is Ellipsis
        kinds = arguments[:1] * len(value) if repeated else arguments
        if len(kinds) == len(value):
            parts = (
                _convert(part, kind, f"{name}[{i}]", problems)
                for i, (part, kind) in enumerate(zip(value, kinds, strict=True))
            )
            return origin(parts)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(part, arguments[1], f"{name}.{key}", problems) for key, part in value.items()}
    if origin is Literal and any(
        value is choice or (type(value) is type(choice) and value == choice) for choice in arguments
    ):
        return value
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    if origin not in (tuple, list, dict, Literal) and hint not in (bool, int, float, str, type(None)):
        raise TypeError(f"config field {name} has the type {hint}, which config.json cannot hold")
    problems.append(f"{name} should be {getattr(hint, '__name__', hint) if origin is None else hint}, not {value!r}")
    return None
