"""Everything that needs a GPU, in one call with a time limit: tests, speeds, one training run, its evaluation.

    python benchmarks/gpu_run.py --minutes 9 --out DIR
    python benchmarks/gpu_run.py --minutes 9 --out DIR --photos photos.pack --face-model face.npz
    python benchmarks/gpu_run.py --minutes 2 --out DIR --device cpu
    python benchmarks/gpu_run.py --pack 2DASL --out photos.pack

The parts run one after another, each in a process of its own and within its share of the time (``README.md`` has the
table). A part that has little time does less and says what it left out. One that fails, or takes too long all the same
and is ended, is written down with the last line of its traceback, and the next goes on. What comes back, at most eight
files: ``gpu_run.json`` (what was measured, where, with which code, how long each part took), ``gpu_run.log.jsonl`` (the
rows of the training), ``gpu_run.weights.1of3`` and so on (the network in half precision;
``twodasl_lite.training.gpu_results.join_weights`` makes one file of them) and ``gpu_run.faces.png``.
``twodasl_lite.training.gpu_results.read_gpu_run`` reads them.

The machine needs torch, numpy, opencv, scipy, safetensors and tqdm, numba for fast drawing on the CPU, and no network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BEGAN = time.perf_counter()  # before PyTorch is imported, which takes seconds
ROOT = Path(__file__).resolve().parents[1]
for folder in (str(ROOT), str(Path(__file__).parent)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

from gpu_parts import LESS, NETWORK, PARTS, RUN, Settings, about  # noqa: E402

from twodasl_lite.base.archive import whole_file  # noqa: E402
from twodasl_lite.base.errors import TwodaslError  # noqa: E402
from twodasl_lite.training.config import load_config  # noqa: E402
from twodasl_lite.training.gpu_results import FORMAT, VERSION, split_weights  # noqa: E402
from twodasl_lite.training.log import LOG_FILE, code_version  # noqa: E402

NAME = "gpu_run"
MOST_FILES, MOST_BYTES = 8, 16 * 2**20
PACK_BYTES = 45_000_000
GRACE = 8.0  # seconds that an ended part has for leaving a checkpoint
_LAST = ("faces", "evaluation")  # their time is kept for them, whatever the training takes
_LEAST = {"ready": 30.0, "drawing": 10.0, "kernels": 6.0, "profile": 12.0, "faces": 10.0, "evaluation": 10.0}
"""Seconds that a part has at least in runs of :data:`_SHORT` seconds or more: on CPUs a share would not do."""
_SHORT = 120.0
_MEASURED = ("ready", "tests", "drawing", "kernels", "profile")
"""What is before the training, which has less if they take longer than they should."""
_BEGIN = 1.5
"""Seconds of a core that a part takes before it measures anything: reads the face, loads what is compiled."""
_FEWEST_MINUTES = 1.0
"""Of a run of all parts."""


# -------------------------------------------------------------------------------------------------- parts as processes
def _report_into(path: Path):
    """A function that adds to a part's results and writes them to disk at once."""
    found: dict[str, Any] = {}

    def report(**facts: Any) -> None:
        found.update(facts)
        with whole_file(path) as file:
            file.write(json.dumps({"result": found}).encode())

    return report


def _child(name: str, settings: Settings, path: Path) -> None:
    """Run one part and write its outcome."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that it can be stopped together with its helpers
    report = _report_into(path)
    settings = settings._replace(until=time.perf_counter() + settings.seconds)
    try:
        PARTS[name][1](settings, report)
    except BaseException as error:
        traceback.print_exc()
        found = json.loads(path.read_text()) if path.is_file() else {}
        with whole_file(path) as file:
            file.write(json.dumps(found | {"why": about(error)}).encode())
        sys.stdout.flush()
        os._exit(1)


def run_part(name: str, settings: Settings, patience: float = 0.0) -> dict[str, Any]:
    """One part in a process of its own.

    Args:
        name: Of the part.
        settings: What it is to do; its seconds are what it is told to take.
        patience: Seconds more that it may take: what it does between two looks at the clock has no fixed length.

    Returns:
        ``"state"`` (``"done"``, ``"failed"``, ``"cut off"``), ``"seconds"``, ``"allowed"``, ``"result"`` and, unless
        the part is done, ``"why"``.
    """
    path = settings.work / f"{name}.json"
    start = time.perf_counter()
    # A forked part has torch imported already; CUDA is initialised only in the parts.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    process = multiprocessing.get_context(method).Process(target=_child, args=(name, settings, path))
    process.start()
    process.join(settings.seconds + patience)
    late = process.is_alive()
    if late:
        process.terminate()  # to the part alone: a training run then writes a checkpoint
        process.join(GRACE)
    _end(process)
    process.join()
    found = json.loads(path.read_text()) if path.is_file() else {}
    result = {"seconds": round(time.perf_counter() - start, 1), "allowed": round(settings.seconds, 1)}
    if late:
        found = {"why": f"ended after {settings.seconds + patience:.0f} s; it had {settings.seconds:.0f}"} | found
    elif process.exitcode and "why" not in found:
        found["why"] = f"the process ended with status {process.exitcode}"
    state = "cut off" if late else "failed" if "why" in found else "done"
    return {"state": state, **result, **found}


def _end(process: multiprocessing.Process) -> None:
    """End the remaining processes of a part and its helpers."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass


# --------------------------------------------------------------------------------------------------------- the whole
def shares(seconds: float, elapsed: float, name: str, start: float = 0.0) -> float:
    """Seconds that a part may take.

    Each part has its share of the total; the training gets all remaining time less the shares of the parts after it,
    and the last part gets all that is left.

    Args:
        seconds: Of the whole.
        elapsed: So far.
        name: Of the part.
        start: That a part takes to begin. The parts at the end have three times that, so that a busy machine, where
            everything takes longer, still comes to them.
    """

    def own(one: str) -> float:
        least = _LEAST.get(one, 0.0) * min(1.0, seconds / _SHORT)
        late = min(3 * start, 0.15 * seconds) if one in _LAST else 0.0
        return max(PARTS[one][0] * seconds, least, late)

    left = seconds - elapsed - _writing(seconds)
    if name == "training":
        return max(own(name) / 4, left - sum(map(own, _LAST)) - GRACE)
    return max(1.0, left if name == _LAST[-1] else min(own(name), left))


def _writing(seconds: float) -> float:
    return min(6.0, 0.03 * seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, or make the file of photographs.

    Returns:
        0 if every part is done, otherwise 1; the files are written either way.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pack:
        return pack(options.pack, options.out)
    if not options.only and options.minutes < _FEWEST_MINUTES:
        parser.error(
            f"--minutes: found {options.minutes:g}; expected {_FEWEST_MINUTES:g} or more for all parts, or --only some"
        )
    started = _BEGAN if arguments is None else time.perf_counter()
    seconds, began = 60 * options.minutes, time.perf_counter() - started
    if began > seconds / 3:
        parser.error(
            f"--minutes: found {options.minutes:g}, of which {began:.0f} s went to importing PyTorch; expected "
            f"{math.ceil(began / 20)} or more on a machine as busy, or as slow, as this one"
        )
    there = options.device != "cpu" and _cuda()
    if options.device == "cuda" and not there:
        parser.error("--device: found cuda, but torch sees no CUDA device here; expected cpu")
    device = options.device or ("cuda" if there else "cpu")
    config, overrides = _configuration(options, device)
    load_config(config, list(overrides))  # an invalid override raises an error before any time is spent
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{NAME}.*"):
        old.unlink()
    work = Path(tempfile.mkdtemp(prefix="gpu_run_")) if options.work is None else options.work
    work.mkdir(parents=True, exist_ok=True)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "finished": False,
        "provenance": _provenance(options, device, arguments),
        "parts": {},
    }
    try:
        for name in PARTS if not options.only else options.only:
            if name == "tests" and device == "cpu":
                facts["parts"][name] = {"state": "left out", "why": "the tests of CUDA want CUDA"}
                continue
            core = facts["parts"].get("ready", {}).get("result", {}).get("share_of_a_core", 1.0)
            start = _BEGIN / max(core, 0.01)
            allowed = shares(seconds, time.perf_counter() - started, name, start)
            if name in _MEASURED and allowed < start:
                why = f"it would have {allowed:.0f} s, and needs {start:.0f} to begin with {core:.0%} of a core"
                facts["parts"][name] = {"state": "left out", "why": why}
                print(f"{name}: left out ({why})", flush=True)
                continue
            print(f"{name}: {allowed:.0f} s", flush=True)
            settings = Settings(device, allowed, work, config, tuple(overrides), options.photos)
            more = max(GRACE, allowed / 2) if name in _MEASURED else allowed / 2 if name == "faces" else 0.0
            facts["parts"][name] = run_part(name, settings, more)
            facts["provenance"]["load"].append(_load())
            print(f"{name}: {_said(facts['parts'][name])}", flush=True)
            _write(facts, out, work, started, final=False)
        written = _write(facts, out, work, started, final=True)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    for path in sorted(out.glob(f"{NAME}.*")):
        print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"{time.perf_counter() - started:.0f} s of {seconds:.0f}")
    return 0 if written and all(part["state"] in ("done", "left out") for part in facts["parts"].values()) else 1


def _write(facts: dict[str, Any], out: Path, work: Path, started: float, *, final: bool) -> bool:
    """Write what there is; all of it again after every part, so that little is lost if the whole is ended.

    A full disk costs the files that do not fit, and no part.

    Returns:
        Whether all could be written.
    """
    problems: list[str] = []

    def kept(source: Path, target: Path) -> bool:
        if not source.is_file():
            return False
        try:
            _copy(source, target)
        except OSError as error:
            problems.append(f"{target.name}: {error}")
            return False
        return True

    result = facts["parts"].get("training", {}).get("result", {})
    result.pop("log", None)
    if kept(work / RUN / LOG_FILE, out / f"{NAME}.log.jsonl"):
        result["log"] = f"{NAME}.log.jsonl"
    facts["finished"] = bool(result.get("finished"))
    if (work / NETWORK).is_file() and "parts" not in facts.get("weights", {}):
        try:
            parts = split_weights(work / NETWORK, out / f"{NAME}.weights")
            facts["weights"] = {"parts": [part.name for part in parts], "bytes": sum(p.stat().st_size for p in parts)}
        except (TwodaslError, OSError) as error:
            facts["weights"] = {"why": about(error)}
            problems.append(f"{NAME}.weights: {about(error)}")
    kept(work / "faces.png", out / f"{NAME}.faces.png")
    facts["provenance"]["seconds"] = round(time.perf_counter() - started, 1)
    facts["not written"] = problems
    if final:
        files = sorted(out.glob(f"{NAME}.*"))
        heavy = [path.name for path in files if path.stat().st_size > MOST_BYTES]
        if heavy or len(files) + (not (out / f"{NAME}.json").is_file()) > MOST_FILES:
            facts["too much"] = f"{len(files)} files; above {MOST_BYTES:,} bytes: {', '.join(heavy) or 'none'}"
    try:
        with whole_file(out / f"{NAME}.json") as file:
            file.write((json.dumps(_rounded(facts), indent=1) + "\n").encode())
    except OSError as error:
        problems.append(f"{NAME}.json: {error}")
    if problems:
        print(f"{out}: found no room ({'; '.join(problems)}); expected {4 * MOST_BYTES:,} bytes", flush=True)
    return not problems


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as file:
        file.write(source.read_bytes())


def _rounded(value: Any) -> Any:
    """A number with six digits; ``None`` for NaN or infinity, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _said(part: dict[str, Any]) -> str:
    less = part.get("result", {}).get(LESS, [])
    why = [part["why"]] if "why" in part else []
    return f"{part['state']} after {part['seconds']:.0f} s" + (f" ({'; '.join([*why, *less])})" if why or less else "")


def _configuration(options: argparse.Namespace, device: str) -> tuple[str, list[str]]:
    """The configuration, and the overrides that the given files require."""
    from twodasl_lite.training.config import shipped_configs

    shipped = shipped_configs()
    photographs = "photos/full-gpu" if "photos/full-gpu" in shipped else "photos/+landmarks_2d"
    default = "lite-cpu" if device == "cpu" else photographs if options.photos else "full-gpu"
    words = list(options.set)
    if options.face_model:
        words.append(f"data.face_model={options.face_model.resolve()}")
    config = options.config or default
    if options.photos and load_config(config, words).data.unlabelled.kind == "aflw":
        words.append(f"data.unlabelled.path={options.photos.resolve()}")
    return config, words


def _load() -> float:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else math.nan


def _cuda() -> bool:
    """Whether CUDA is available, tested in another process: this one forks the parts and must not initialise CUDA."""
    words = [sys.executable, "-c", "import torch, sys; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(words, check=False).returncode == 0


def _provenance(options: argparse.Namespace, device: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """Provenance of the run: machine, time, versions."""
    words = sys.argv[1:] if arguments is None else arguments
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python benchmarks/gpu_run.py", *(Path(w).name if "/" in w else w for w in words)]),
        "minutes": options.minutes,
        **code_version(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": "cpu",
        "load": [_load()],  # programs that want a core, as the system counts them: at the start, after each part
    }
    if options.commit:
        found["commit"] = options.commit
    if device == "cuda":
        query = (
            "import json, torch; p = torch.cuda.get_device_properties(0); print(json.dumps({'device': p.name, 'cuda': "
            "torch.version.cuda, 'memory_gib': round(p.total_memory / 2**30, 1), 'gpus': torch.cuda.device_count()}))"
        )
        asked = subprocess.run([sys.executable, "-c", query], capture_output=True, text=True, check=False)
        found |= json.loads(asked.stdout) if asked.returncode == 0 else {"device": f"cuda ({asked.stderr[-200:]})"}
        found["driver"] = _driver()
    return found


def _driver() -> str:
    """Version of the driver, from nvidia-smi."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


# ----------------------------------------------------------------------------------------------------------- the pack
def pack(clone: Path, out: Path) -> int:
    """Make the file of photographs.

    Returns:
        0, or 1 if the file exceeds the limit.
    """
    try:
        from twodasl_lite.datasets.packed import pack_photos
    except ImportError:
        print(
            "--pack: this version of the package cannot pack photographs (twodasl_lite.datasets.packed)",
            file=sys.stderr,
        )
        return 1
    pack_photos(clone, out)
    size = out.stat().st_size
    print(f"{out}: {size:,} bytes, of {PACK_BYTES:,} that may travel")
    return int(size > PACK_BYTES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=_minutes, default=9.0, metavar="M", help="time for everything (default: 9)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: a GPU if there is one")
    parser.add_argument("--config", metavar="NAME", help="configuration to train (default: by device and files)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a configuration value")
    parser.add_argument("--photos", type=_file, metavar="FILE", help="photographs, as --pack makes them, or a clone")
    parser.add_argument("--face-model", type=_file, metavar="FILE", help="a face model instead of the book's")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for temporary files and checkpoints")
    parser.add_argument("--commit", metavar="HASH", help="commit of the code, if git is not available")
    parser.add_argument("--pack", type=_file, metavar="CLONE", help="make the file of photographs --out, and stop")
    return parser


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.2 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected minutes, 0.2 or more")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"found {text!r}, which is not there; expected a file")
    return path


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TwodaslError as error:
        print(f"gpu_run: {error}", file=sys.stderr)
        sys.exit(1)
