"""Mutations of nested values, arrays and bytes, drawn with a random generator."""

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

INTEGERS = (-1, 0, 1, 2, 3, 7, 1000, 10**6, 10**9, 2**31, 2**63, 10**30, -(2**40))
FRACTIONS = (0.5, -0.5, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"))
NUMBERS = (*INTEGERS, *FRACTIONS)
TEXTS = ("", " ", "text", "gru", "lstm", "nan", "1", "../x", "a\nb", "\0", "ü" * 300, "x" * 10**5)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    (),
    [None],
    [[]],
    {"a": 1},
    {0: 0},
    b"bytes",
    1j,
    {1, 2},
    OrderedDict(a=1),
    torch.float64,
    torch.Size([2]),
    [0.5] * 1000,
    {"class_path": "os.system", "init_args": {}},
)
TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: t.long(),
    lambda t: t.bool(),
    lambda t: t.to(torch.complex64),
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t.T.contiguous() if t.ndim == 2 else t.reshape(-1)[:0],
    lambda t: t[1:] if t.ndim else t.reshape(1),
    lambda t: torch.cat([t, t]) if t.ndim else t + 1,
    lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t - 1,
    lambda t: torch.full_like(t, float("inf")) if t.is_floating_point() else t + 1,
    lambda t: torch.full_like(t, 1e30) if t.is_floating_point() else t * 0 - 1,
    lambda t: -t if t.is_floating_point() else t,
    lambda t: t * 0,
    lambda t: t.reshape(-1)[:1].expand(10**9) if t.numel() else t,
    lambda t: t.flip(0) if t.ndim else t,
    lambda t: t.to_sparse() if t.ndim == 2 else t,
    lambda t: torch.empty(t.shape, device="meta"),
    lambda t: t.tolist(),
    lambda t: t.numpy().tobytes(),
    lambda t: torch.nn.Parameter(t.float()),
)


def mutated(content: Any, rng: random.Random) -> tuple[Any, str]:
    """Return a copy of a nested value with one to three changes, and what they are."""
    content = copy.deepcopy(content)
    texts = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if content:  # all of it may have been deleted
            texts.append(_change(content, rng))
    return content, "; ".join(texts)


def _change(content: Any, rng: random.Random) -> str:
    """Change a random entry; each level of nesting is as likely as the next one."""
    entry = content
    place: list[str] = []
    while True:
        keys = list(entry) if isinstance(entry, dict) else list(range(len(entry)))
        key = rng.choice(keys)
        place.append(str(key))
        inner = entry[key]
        is_nested = isinstance(inner, dict | list) and len(inner) > 0
        if not is_nested or rng.random() < 0.2:
            break
        entry = inner
    kind = rng.random()
    where = ".".join(place)
    if kind < 0.12:
        del entry[key]
        return f"no {where}"
    if kind < 0.2 and isinstance(entry, dict):
        entry[rng.choice((f"{key}x", f"{key}x", "", 0, -1, 10**30))] = entry.pop(key)
        return f"{where} has another name"
    if kind < 0.28:
        other = rng.choice(keys)
        entry[key], entry[other] = entry[other], inner
        return f"{where} and {other} are swapped"
    entry[key] = copy.deepcopy(other_value(inner, rng))  # which may be changed, too
    return f"{where} = {str(entry[key])[:60]!r}"


def other_value(value: Any, rng: random.Random) -> Any:  # noqa: PLR0911
    """Return a value in place of another one, often one of its type."""
    if rng.random() < 0.25 or value is None:
        return rng.choice((*NUMBERS, *TEXTS, *OTHERS))
    if isinstance(value, Tensor):
        return rng.choice(TENSORS)(value.detach())
    if isinstance(value, bool):
        return rng.choice((not value, int(value), str(value)))
    if isinstance(value, int | float):
        near = (value + 1, value - 1, -value, value * 2, value / 3, str(value), [value], True)
        return rng.choice((*NUMBERS, *near))
    if isinstance(value, str):
        return rng.choice((*TEXTS, value + "x", value[1:], value.upper(), [value]))
    if isinstance(value, dict):
        return rng.choice(([], {}, list(value.items()), list(value), str(value)[:99], [value]))
    if isinstance(value, list | tuple):
        items = list(value)
        longer = items + items
        pairs = dict(enumerate(items))
        return rng.choice(([], {}, items[1:], items[::-1], longer, pairs, [items], tuple(items)))
    return rng.choice((*NUMBERS, *TEXTS, *OTHERS))


def other_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return an array in place of another one."""
    if array.ndim == 0:
        return array[None]
    choices: list[Callable[[], np.ndarray]] = [
        lambda: array[1:],
        lambda: array[:0],
        lambda: array[::-1],
        lambda: np.concatenate([array, array]),
        lambda: array[None],
        lambda: array.reshape(-1),
        lambda: np.asfortranarray(array),
        lambda: np.array(rng.choice(NUMBERS)),
        lambda: array.astype(str),
        lambda: array.astype("S"),
        lambda: np.array(rng.choice(TEXTS)),
    ]
    if array.dtype.kind in "iuf":
        dtype = rng.choice(("f2", "f4", "f8", ">f4", "i1", "u8", "?", "c8", "M8[s]", "m8[s]"))
        choices += [
            lambda: array.astype(dtype),
            lambda: array * 0,
            lambda: -array,
            lambda: array + 1,
            lambda: _with(array, rng.choice(NUMBERS), rng),
            lambda: _with(array, rng.choice(NUMBERS), rng),
        ]
    else:
        choices += [
            lambda: _with(array, rng.choice(TEXTS), rng),
            lambda: np.arange(len(array)),
            lambda: np.full(len(array), np.nan),
        ]
    with np.errstate(all="ignore"):
        return rng.choice(choices)()


def _with(array: np.ndarray, value: Any, rng: random.Random) -> np.ndarray:
    changed = array.reshape(-1).tolist()
    changed[rng.randrange(len(changed))] = value
    return np.array(changed).reshape(array.shape)


def mutated_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return bytes with a change, and what it is."""
    changed = bytearray(content)
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((1, 4, 100, 5000)))
    kind = rng.choice(("flip", "cut", "zero", "remove", "insert", "random", "repeat"))
    if kind == "flip":
        changed[start] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[start:]
    elif kind == "zero":
        changed[start:stop] = bytes(stop - start)
    elif kind == "remove":
        del changed[start:stop]
    elif kind == "insert":
        changed[start:start] = rng.randbytes(stop - start)
    elif kind == "random":
        changed[start:stop] = rng.randbytes(stop - start)
    else:
        changed[start:start] = changed[start:stop]
    return bytes(changed), f"{kind} at byte {start}"
