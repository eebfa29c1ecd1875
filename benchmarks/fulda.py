"""A real series: daily discharge of the river Fulda at the gauge Grebenau, 1979 to 1988.

    python benchmarks/fulda.py csv flows.csv     write the series as CSV
    python benchmarks/fulda.py linear flows.csv  NSE of persistence and of ridge regression on lagged inputs
    jax-lstm train benchmarks/fulda.yaml         train five LSTMs; `jax-lstm evaluate RUN` scores them
    python benchmarks/fulda.py result flows.csv RUN RUN_WITH_FLOW    write results/fulda.json, for tables.py

The package spotpy (MIT license) holds the numbers: `pip install --no-deps spotpy`. `csv` reads the installed package,
or a wheel that is given as third argument. This repository holds no data.

Columns: date; rain and pet in mm per day; tmin and tmax in °C; flow in m³ per second. pet is the potential
evapotranspiration of Hargreaves & Samani (1985), computed from date, tmin and tmax:

    pet = 0.0023 Ra (tmean + 17.8) √(tmax − tmin)        tmean = (tmin + tmax) / 2

Ra is the extraterrestrial radiation, in mm of evaporated water per day (Allen et al. 1998, equation 21).
"""

import csv
import json
import math
import sys
import zipfile
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np

RESULT = Path(__file__).parent / "results" / "fulda.json"
PACKAGE, INSIDE = "spotpy", "examples/cmf_data/fulda_climate.csv"
COLUMNS = ("date", "rain", "tmin", "tmax", "pet", "flow")
LATITUDE = math.radians(50.8)
PARTS = (0, 2557, 2922, 3653)  # the first days of training (1979), validation (1986) and test (1987), and the end
LAGS, RIDGES = (0, 1, 3, 7, 14, 30, 60, 90, 180, 365), 10.0 ** np.arange(-1, 5)


def radiation(day_of_year: int) -> float:
    """Ra at LATITUDE."""
    angle = 2 * math.pi * day_of_year / 365
    distance, declination = 1 + 0.033 * math.cos(angle), 0.409 * math.sin(angle - 1.39)
    sunset = math.acos(-math.tan(LATITUDE) * math.tan(declination))
    high = sunset * math.sin(LATITUDE) * math.sin(declination)
    low = math.cos(LATITUDE) * math.cos(declination) * math.sin(sunset)
    return 0.408 * 24 * 60 / math.pi * 0.0820 * distance * (high + low)


def write_csv(out: str, wheel: str | None = None) -> None:
    """Write the series; `wheel` is a file of spotpy, None the installed package."""
    if wheel is None:
        found = find_spec(PACKAGE)  # not an import, which would need all that spotpy needs
        if found is None or not found.submodule_search_locations:
            raise SystemExit("fulda: wanted the package spotpy, but it is not installed; pip install --no-deps spotpy")
        text = (Path(found.submodule_search_locations[0]) / INSIDE).read_text("utf-8")
    else:
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read(f"{PACKAGE}/{INSIDE}").decode("utf-8")
    days = csv.DictReader(text.splitlines())
    next(days)  # the units
    with Path(out).open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for day in days:
            date = datetime.strptime(day["date"], "%d.%m.%Y").date()
            tmin, tmax = float(day["tmin"]), float(day["tmax"])
            mean, swing = (tmin + tmax) / 2, math.sqrt(max(tmax - tmin, 0))
            pet = max(0.0023 * radiation(date.timetuple().tm_yday) * (mean + 17.8) * swing, 0)
            lines.writerow((date.isoformat(), day["Prec"], day["tmin"], day["tmax"], f"{pet:.3f}", day["Q"]))


def nse(y: np.ndarray, target: np.ndarray) -> float:
    """1 − Σ (y − target)² / Σ (target − mean target)² (Nash & Sutcliffe 1970)."""
    return float(1 - np.sum((y - target) ** 2) / np.sum((target - target.mean()) ** 2))


def lagged(xs: np.ndarray, lags: int) -> np.ndarray:
    """(T, I) -> (T, (lags + 1) I): the inputs of a day and of the days before. Days before the first are 0."""
    padded = np.concatenate([np.zeros((lags, xs.shape[1])), xs])
    return np.concatenate([padded[lags - k : lags - k + len(xs)] for k in range(lags + 1)], axis=1)


def ridge(xs: np.ndarray, flow: np.ndarray, ahead: int) -> tuple[float, str]:
    """The test NSE of ridge regression, and its options: those with the best validation NSE."""
    _, a, b, _ = PARTS
    xs = (xs - xs[:a].mean(0)) / xs[:a].std(0)
    found = []
    for lags in LAGS:
        seen = lagged(xs, lags)
        seen = np.concatenate([np.zeros((ahead, seen.shape[1])), seen[: len(seen) - ahead]])
        first = min(lags, 365) + ahead
        mean, target_mean = seen[first:a].mean(0), flow[first:a].mean()
        centered, target = seen[first:a] - mean, flow[first:a] - target_mean
        square, product = centered.T @ centered, centered.T @ target
        for alpha in RIDGES:
            w = np.linalg.solve(square + alpha * np.eye(len(square)), product)
            y = (seen - mean) @ w + target_mean
            found.append((nse(y[a:b], flow[a:b]), nse(y[b:], flow[b:]), f"{lags} lags, penalty {alpha:g}"))
    best = max(found)
    return best[1], f"{best[2]}, validation {best[0]:.3f}"


def linear(path: str) -> dict[str, tuple[float, str]]:
    """The test NSE of persistence and of ridge regression, and what each is."""
    with Path(path).open(encoding="utf-8") as file:
        days = [[float(day[name]) for name in COLUMNS[1:]] for day in csv.DictReader(file)]
    data = np.array(days)
    flow, b = data[:, -1], PARTS[2]
    return {
        "persistence": (nse(flow[b - 1 : -1], flow[b:]), "one day"),
        "ridge": ridge(data[:, :-1], flow, 0),
        "ridge with flow": ridge(data, flow, 1),
    }


def print_linear(path: str) -> None:
    """Print them."""
    for name, (score, options) in linear(path).items():
        print(f"{name}: {score:.3f} ({options})")


def write_result(path: str, *runs: str) -> None:
    """Write results/fulda.json: the baselines, and the test scores of two runs that `jax-lstm evaluate` wrote."""
    scores = [json.loads((Path(run) / "test.json").read_text())["scores"] for run in runs]
    result = {name: round(score, 4) for name, (score, _) in linear(path).items()}
    rows = result | dict(zip(("LSTM", "LSTM with flow"), ([round(x, 4) for x in s] for s in scores), strict=True))
    RESULT.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    {"csv": write_csv, "linear": print_linear, "result": write_result}[sys.argv[1]](*sys.argv[2:])
