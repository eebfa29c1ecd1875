"""A small table with three ragged sequences and holes, written as CSV, Parquet and NumPy archive."""

import io

import numpy as np
import polars

LENGTHS = {"north": 24, "south": 17, "west": 20}
OPTIONS = {"inputs": "rain,temp", "targets": "flow", "sequence": "site", "time": "day", "static": "area"}


def columns(seed=0):
    """The columns by name, with NaN for holes; rows of different sequences are not interleaved."""
    rng = np.random.default_rng(seed)
    R = sum(LENGTHS.values())
    found: dict[str, np.ndarray] = {name: rng.normal(size=R).round(3) for name in ("rain", "temp", "flow")}
    found["rain"][[2, 3, 30]] = np.nan
    found["flow"][[5, 26, 60]] = np.nan
    found["site"] = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    found["day"] = np.concatenate([np.arange(T) for T in LENGTHS.values()])
    found["area"] = np.repeat([7.0, 2.5, 4.0], list(LENGTHS.values()))
    found["wet"] = np.where(np.isnan(found["rain"]), "", np.where(found["rain"] > 0, "wet", "dry"))
    return found


def interleaved(found, seed=0):
    """The same rows in another order, in which the sequences keep the order of their first rows."""
    order = np.random.default_rng(seed).permutation(len(found["day"]))
    first = [int(np.flatnonzero(found["site"] == site)[0]) for site in LENGTHS]
    order = np.array(first + [k for k in order if k not in first])
    return {name: values[order] for name, values in found.items()}


def dates(found):
    """The same columns, with dates as days."""
    return found | {"day": (np.datetime64("2020-02-20") + found["day"]).astype(str)}


def csv(found, separator=",", hole=""):
    """The columns as the text of a CSV file."""

    def text(value):
        return hole if isinstance(value, float) and np.isnan(value) else str(value)

    rows = zip(*(values.tolist() for values in found.values()), strict=True)
    return "\n".join([separator.join(found), *(separator.join(map(text, row)) for row in rows)]) + "\n"


def parquet(found):
    """The columns as the bytes of a Parquet file, with null for holes."""
    file = io.BytesIO()
    polars.DataFrame(found).fill_nan(None).write_parquet(file)
    return file.getvalue()


def npz(found, **more):
    """The columns as the bytes of an archive."""
    file = io.BytesIO()
    np.savez(file, **found, **more)
    return file.getvalue()


def padded(found):
    """The columns as arrays (N, T), padded with 99, and their lengths."""
    made = {"lengths": np.array(list(LENGTHS.values()))}
    for name, values in found.items():
        parts = [values[found["site"] == site] for site in LENGTHS]
        if name in ("site", "area"):
            made[name] = np.array([part[0] for part in parts])
        elif values.dtype.kind in "fi":
            longest = max(LENGTHS.values())
            made[name] = np.stack([np.append(part, [99] * (longest - len(part))) for part in parts])
    return made


def write(folder, name, content):
    """Write a file and return its path as a string."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)
