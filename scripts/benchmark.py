"""Time this project's parts against the PyTorch ones, on this machine, in one run, taking turns.

    python scripts/benchmark.py [--only SECTION,...] [--repeats 10] [--output F]

Prints a Markdown table, and writes the same with all samples, versions and the machine as json. The time of a contest
is the fastest of all calls: other load on the machine only ever adds time.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from cliff_ms.io.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mindspore", "torch", "onnxruntime", "smplx", "numpy", "opencv-python")
TOLERANCE = 1e-4  # of the largest value: what two sides may differ by and still count as the same computation


@dataclass(frozen=True)
class Contest:
    """One row: our contender, perhaps a rival, both functions of `benchmark_contenders.py` with equal arguments."""

    section: str
    title: str
    ours: str
    rival: str | None = None
    arguments: dict = field(default_factory=dict)
    goal: float | None = None  # rival's time / our time
    calls: int = 1  # per turn
    slow: bool = False  # takes half of the turns
    tolerance: float = TOLERANCE  # of the outputs, see there

    @property
    def contenders(self) -> list[str]:
        """Ours, then the rival if there is one."""
        return [self.ours] if self.rival is None else [self.ours, self.rival]


def _network(section: str, encoder: str, batch: int, goal: float, ours: str, rival: str) -> Contest:
    title = {"res50": "ResNet-50", "hr48": "HRNet-W48"}[encoder]
    title = f"{title} forward, 256x192, batch {batch}" if section == "encoder" else f"CLIFF {title}, batch {batch}"
    return Contest(section, title, ours, rival, {"encoder": encoder, "batch": batch}, goal, calls=2)


def _training(what: str, losses: bool) -> Contest:
    arguments = {"encoder": "res50", "batch": 16, "losses": losses}
    title = f"training step, ResNet-50, 256x192, batch 16, {what}"
    return Contest("train", title, "mindspore_train", "torch_train", arguments, goal=0.95, slow=True)


def _film(frames: int, found: bool, engine: str, rival: str | None = None) -> Contest:
    title = f"720p film of {frames} frames and two people, {'found' if found else 'keypoints given'}, {engine}"
    arguments = {"frames": frames, "found": found, "engine": engine}
    return Contest("video", title, "demo_video", rival, arguments, slow=True)


def _keypoints(batch: int) -> dict:
    return {"encoder": "keypoints", "batch": batch, "losses": True}


CONTESTS = [
    _network("encoder", "res50", 8, 0.95, "mindspore_encoder", "torch_encoder"),
    _network("encoder", "hr48", 4, 0.8, "mindspore_encoder", "torch_encoder"),
    *(
        _network("onnx", encoder, batch, 1.3, "onnxruntime_cliff", "torch_cliff")
        for encoder in ("res50", "hr48")
        for batch in (1, 8)
    ),
    *(
        Contest("smpl", title, "mindspore_smpl", "smplx_smpl", {"batch": 64, "backward": backward}, goal, calls=10)
        for title, backward, goal in (
            ("SMPL forward, batch 64", False, 1.5),
            ("SMPL forward and backward, batch 64", True, 1.7),
        )
    ),
    *(
        Contest(
            "photo",
            f"720p photo of {people} to bodies, against its networks alone",
            "photo_to_bodies",
            "networks_of_a_photo",
            {"people": people},
            goal=1 / 1.15,
        )
        for people in (1, 3, 8)
    ),
    _film(100, False, "onnxruntime", "script_video"),
    _film(100, False, "mindspore"),
    _film(100, True, "onnxruntime"),
    _film(100, True, "mindspore"),
    _film(1000, False, "onnxruntime"),
    *(
        Contest(
            "fit",
            f"fit of {people} to 17 keypoints, against Adam to the same energy",
            "our_fit",
            "adam_fit",
            {"people": people},
            tolerance=0.1,  # of the mean 2D error: two points of equal energy, not one
        )
        for people in (1, 8)
    ),
    Contest("render", "rasterize one body, 1280x720", "rasterize_body", calls=5),
    Contest("render", "overlay of one body, 1280x720", "render_body", calls=5),
    _training("SMPL and all losses", True),
    _training("squared errors of the outputs only", False),
    Contest("train", "training step, keypoint model, batch 512", "mindspore_train", arguments=_keypoints(512)),
    Contest("data", "320 training samples of 720p JPEGs", "our_pipeline", "torch_pipeline", {"workers": 2}, goal=1.3),
    Contest("drift", "500 training steps, keypoint model, batch 128", "mindspore_train", arguments=_keypoints(128)),
]
COLUMNS = ("What", "Ours", "Rival", "Speed-up", "Goal", "Relative difference")
SECTIONS = tuple(dict.fromkeys(contest.section for contest in CONTESTS))


class Contender:
    """A process that makes one call again and again.

    Every contender has its own process. MindSpore needs ONEDNN_MAX_CPU_ISA=AVX2, which PyTorch's copy of oneDNN obeys
    as well and would be slowed down by: `import cliff_ms` sets it, so PyTorch's processes must not import that, and no
    process may inherit it. A waiting contender blocks on a pipe and takes no processor time (measured below 1 %).
    """

    def __init__(self, name: str, arguments: dict, folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
        environment["PYTHONPATH"] = str(ROOT)
        script = str(ROOT / "scripts" / "benchmark_contenders.py")
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, script, name, json.dumps(arguments), str(folder)],
            env=environment,
            cwd=folder,  # MindSpore leaves files where it stands
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.threads = self._answer("ready").removeprefix("ready ").strip()
        self.seconds: list[float] = []
        with np.load(folder / f"output_{self.process.pid}.npz") as output:
            self.output = list(output.values())

    def _answer(self, start: str) -> str:
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise RuntimeError(f"The contender {self.name} ended early; its message is above.")

    def take_turn(self, calls: int) -> None:
        """Make some calls and keep their times."""
        print(calls, file=self.process.stdin, flush=True)
        self.seconds += json.loads(self._answer("["))

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def peak_memory(self) -> float:
        """MB that were resident at most, on Linux."""
        return _status(self.process.pid, "VmHWM")


@contextlib.contextmanager
def _started(names: list[str], arguments: dict, folder: Path) -> Iterator[list[Contender]]:
    contenders = []
    try:
        for name in names:
            contenders.append(Contender(name, arguments, folder))
        yield contenders
    finally:
        for contender in contenders:
            contender.close()


def prepare(contests: list[Contest], folder: Path) -> None:
    """Write the weights, ONNX files and pictures that the contests need."""
    if any(contest.section == "data" for contest in contests):
        with _started(["make_pictures"], {}, folder):
            pass
    for section in ("fit", "video"):
        if any(contest.section == section for contest in contests):
            with _started([f"prepare_{section}"], {}, folder):
                pass
    batches: dict[str, list[int]] = {}
    for contest in contests:
        if contest.rival and "encoder" in contest.arguments:
            exported = batches.setdefault(contest.arguments["encoder"], [])
            exported.extend([contest.arguments["batch"]] if contest.section == "onnx" else [])
    for encoder, onnx_batches in batches.items():
        with _started(["prepare"], {"encoder": encoder, "onnx_batches": onnx_batches}, folder):
            pass


def hold(contest: Contest, repeats: int, folder: Path) -> dict:
    """Let the contenders of one contest take turns.

    Args:
        contest: Who competes.
        repeats: Turns of each, if they are not slow.
        folder: Where `prepare` wrote.

    Returns:
        Times in ms, the speed-up, and the largest difference between the outputs relative to their largest value.

    Raises:
        RuntimeError: If the outputs differ by more than the contest's tolerance, or a contender fails.
    """
    with _started(contest.contenders, contest.arguments, folder) as contenders:
        for _ in range((repeats + 1) // 2 if contest.slow else repeats):
            for contender in contenders:
                contender.take_turn(contest.calls)
        result = {"section": contest.section, "title": contest.title, "goal": contest.goal}
        result["contenders"] = [_summary(contender) for contender in contenders]
        if contest.rival is not None:
            ours, rival = contenders
            result["speedup"] = min(rival.seconds) / min(ours.seconds)
            result["difference"] = _difference(contest, ours.output, rival.output)
    return result


def watch(contest: Contest, folder: Path) -> dict:
    """Let our contender make five times 100 calls, and see whether it gets slower or larger (on Linux).

    Args:
        contest: Whose contender to watch.
        folder: Where `prepare` wrote.

    Returns:
        For each hundred, calls a second by their median, processor time a call in ms, which other load on the machine
        touches less, and resident memory in MB at its end.
    """
    memory, processor = [], []
    with _started([contest.ours], contest.arguments, folder) as (contender,):
        for _ in range(5):
            before = _processor_seconds(contender)
            contender.take_turn(100)
            processor.append(10 * (_processor_seconds(contender) - before))
            memory.append(_status(contender.process.pid, "VmRSS"))
    return {
        "section": contest.section,
        "title": contest.title,
        "contenders": [_summary(contender)],
        "calls_per_second": [1 / statistics.median(contender.seconds[i : i + 100]) for i in range(0, 500, 100)],
        "processor_ms": processor,
        "memory_mb": memory,
    }


def measure(contests: list[Contest], repeats: int, folder: Path) -> Iterator[dict]:
    """What `hold` gives of each contest, or `watch` of those of the section 'drift'."""
    prepare(contests, folder)
    for contest in contests:
        yield watch(contest, folder) if contest.section == "drift" else hold(contest, repeats, folder)


def _processor_seconds(contender: Contender) -> float:
    user, system = Path(f"/proc/{contender.process.pid}/stat").read_text().split()[13:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _status(process: int, entry: str) -> float:
    """MB of an entry of /proc/PID/status."""
    return int(Path(f"/proc/{process}/status").read_text().split(f"{entry}:")[1].split()[0]) / 1024


def _summary(contender: Contender) -> dict:
    milliseconds = [round(1e3 * s, 3) for s in contender.seconds]
    return {
        "name": contender.name,
        "threads": contender.threads,
        "min_ms": min(milliseconds),
        "median_ms": statistics.median(milliseconds),
        "samples_ms": milliseconds,
        "peak_mb": contender.peak_memory(),
    }


def _difference(contest: Contest, ours: list[np.ndarray], rival: list[np.ndarray]) -> float:
    difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, rival, strict=True))
    if not difference <= contest.tolerance:
        raise RuntimeError(f"{contest.title}: the two sides differ by {difference:g}, so they cannot be compared.")
    return difference


def environment() -> dict:
    """Versions, processor, threads and date."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "unset"),
    }


def table_row(result: dict) -> dict[str, str]:
    """One row of the table, column -> text."""
    row = {"What": result["title"]}
    if result["section"] == "drift":
        rates, processor, memory = result["calls_per_second"], result["processor_ms"], result["memory_mb"]
        first, last = (f"{rates[i]:.1f} /s, {processor[i]:.0f} ms processor, {memory[i]:.0f} MB" for i in (0, -1))
        row |= {"Ours": f"first 100: {first}; last 100: {last}", "Speed-up": f"{rates[-1] / rates[0]:.2f}", "Goal": "1"}
    else:
        row |= dict(zip(("Ours", "Rival"), (_cell(c, result["section"]) for c in result["contenders"]), strict=False))
    if "speedup" in result:
        difference = f"{result['difference']:.0e}"
        goal = "-" if result["goal"] is None else f"{result['goal']:g}"
        row |= {"Speed-up": f"{result['speedup']:.2f}", "Goal": goal, COLUMNS[-1]: difference}
    return dict.fromkeys(COLUMNS, "-") | row


def _cell(contender: dict, section: str) -> str:
    cell = f"{contender['name']} {contender['min_ms']:.1f} ms"
    return f"{cell}, at most {contender['peak_mb']:.0f} MB" if section == "video" else cell


def write_json(path: Path, content: dict) -> None:
    """Write the report under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, of {','.join(SECTIONS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=10, help="turns of each contender (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="F.json", help="also write the results as json")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    unknown = sorted(set(arguments.only) - set(SECTIONS))
    if unknown:
        parser.error(f"argument --only: unknown section {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    if arguments.repeats < 1:
        parser.error("argument --repeats: must be at least 1")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    contests = [contest for contest in CONTESTS if contest.section in arguments.only]
    report = {"environment": environment()}
    versions = ", ".join(f"{name} {version}" for name, version in report["environment"]["versions"].items())
    print(f"{report['environment']['cpu']}, {report['environment']['cores']} cores; {versions}\n")
    with tempfile.TemporaryDirectory(prefix="cliff_benchmark") as folder:
        results, shown = itertools.tee(measure(contests, arguments.repeats, Path(folder)))
        for line in markdown_table(map(table_row, shown)):
            print(line, flush=True)
    report["results"] = list(results)
    if arguments.output:
        write_json(arguments.output, report)


if __name__ == "__main__":
    main()
