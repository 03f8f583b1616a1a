"""Kill a verb at random moments, let it go on, and see whether it ends as if nothing had happened.

    python scripts/soak.py train --kills 100
    python scripts/soak.py annotate prepare demo --kills 100 --work_dir outputs/soak

A piece of work of some seconds is done once without a kill: the reference. Then again and again: started, killed at a
moment drawn uniformly from the reference's duration (SIGKILL and SIGTERM to the process, SIGINT to its group as a
terminal does, in turn), and started again (train --resume; annotate and prepare the same command, which goes on; demo
from the start), until it is let through after some kills. Its files must be the reference's, byte for byte or array
for array, and nothing may be left behind: no hidden file, nothing in the temporary directory or the working directory,
no process, no shared memory. Prints a table and writes WORK_DIR/soak.json; what failed stays in
WORK_DIR/<verb>/failed_<n>.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from cliff_ms import cli
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.io.files import read_npz
from cliff_ms.io.images import read_image
from cliff_ms.zoo import BUNDLED_MODEL, EXAMPLES, HELD_OUT

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MAY_KILL = 6  # a run, before it is let through
ENDS_WITHIN, LASTS_AT_MOST = 60.0, 600.0  # s, after a signal and without one
# How a program may end after each signal: MindSpore turns a Ctrl-C into a SIGTERM while it compiles or runs a graph,
# and what is done before the signal is heard is done.
CODES = {signal.SIGKILL: {-9, 0}, signal.SIGTERM: {-15, 143, 0}, signal.SIGINT: {-2, 130, -15, 143, 0}}
# Not compared: wall-clock times, and which of the earlier checkpoints are still there.
LEFT_OUT = ("**/events.out.tfevents.*", "**/checkpoints/state_*")
PEOPLE, FRAMES, FPS, IMG_HW = 6, 24, 12, (240, 320)
SHARED_MEMORY = Path("/dev/shm")


@dataclasses.dataclass(frozen=True)
class Verb:
    """Work of some seconds.

    Attributes:
        make_inputs: Fills an empty folder with what the work reads.
        command: What to run, of the folder of inputs and the folder of outputs, to start or to go on.
    """

    make_inputs: Callable[[Path], None]
    command: Callable[[Path, Path], list[object]]


def train_command(_: Path, out: Path) -> list[object]:
    """Twelve steps, with pictures and checkpoints between them and a validation at the end."""
    settings = ["train.steps=12", "train.save_every=2", "train.val_every=12", "train.picture_every=5"]
    settings += ["data.batch_size=8", "train.keep=2"]
    resume = ["--resume"] if (out / "run" / "config.yaml").is_file() else []
    config = ROOT / "configs" / "smoke.yaml"
    return ["train.py", "--config", config, "--output_dir", out / "run", *resume, "--set", *settings]


def make_people(folder: Path) -> None:
    """Held-out people of whom only noisy keypoints are known, and a configuration of few epochs."""
    known = load_annotations(HELD_OUT / "annotations.npz", ["input_keypoints_noisy"]).take(slice(PEOPLE))
    seen = {"input_keypoints": known.extras["input_keypoints_noisy"], "keypoints2d": np.zeros_like(known.keypoints2d)}
    save_annotations(folder / "people.npz", dataclasses.replace(known, **seen, extras={}))
    config = (ROOT / "configs" / "annotator_keypoints.yaml").read_text(encoding="utf-8")
    for before, after in (("epochs: 30 ", "epochs: 4 "), ("save_every: 200", "save_every: 2"), ("size: 32", "size: 3")):
        assert before in config  # noqa: S101  the configuration has changed
        config = config.replace(before, after)
    (folder / "annotator.yaml").write_text(config, encoding="utf-8")


def annotate_command(inputs: Path, out: Path) -> list[object]:
    """Everybody, finetuned in some epochs and fitted, with the page of pictures."""
    given = ["--annotations", inputs / "people.npz", "--image_dir", HELD_OUT, "--output", out / "made.npz"]
    return ["annotate.py", "--config", inputs / "annotator.yaml", "--ckpt", BUNDLED_MODEL, *given]


def make_mpi_inf_3dhp(folder: Path) -> None:
    """Two sequences of MPI-INF-3DHP's training set as it is downloaded, with small videos."""
    rng = np.random.default_rng(0)
    for sequence in ("S1/Seq1", "S1/Seq2"):
        videos = folder / sequence / "imageSequence"
        videos.mkdir(parents=True)
        arrays = {"annot2": rng.uniform(100, 1900, (14, FRAMES, 56)), "annot3": rng.normal(0, 700, (14, FRAMES, 84))}
        cells = {key: np.empty((14, 1), object) for key in arrays}
        lines = ["Skeletool Camera Calibration File V1.0"]
        for camera in range(14):
            for key, array in arrays.items():
                cells[key][camera, 0] = array[camera]
            lines += [f"name          {camera}", "  intrinsic   1500 0 1024 0 0 1500 1024 0 0 0 1 0 0 0 0 1"]
            size = (512, 512)
            writer = cv2.VideoWriter(str(videos / f"video_{camera}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, size)
            for frame in range(FRAMES):
                noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                writer.write(cv2.resize(noise // 2 + np.uint8(5 * frame), size))
            writer.release()
        savemat(folder / sequence / "annot.mat", cells)
        (folder / sequence / "camera.calibration").write_text("\n".join(lines) + "\n")


def prepare_command(inputs: Path, out: Path) -> list[object]:
    """Rows and pictures of the data set; the pictures go into its own folders."""
    where = ["--root", inputs, "--output", out / "made.npz"]
    return ["prepare.py", "mpi_inf_3dhp", "--split", "train", "--extract", *where]


def make_clip(folder: Path) -> None:
    """The bundled picture of four people, moving, and where their joints are in each frame."""
    image = read_image(EXAMPLES / "people.jpg")
    told = json.loads((EXAMPLES / "people_keypoints.json").read_text(encoding="utf-8"))["people"][:2]
    scale = IMG_HW[0] / image.shape[0]
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), FPS, IMG_HW[::-1])
    (folder / "keypoints").mkdir()
    for frame in range(FRAMES):
        move = np.array([[scale, 0, 2.0 * frame - 20], [0, scale, 0]])
        writer.write(cv2.warpAffine(image[..., ::-1], move, IMG_HW[::-1]))
        people = []
        for person in told:
            points = np.array(person["pose_keypoints_2d"], float).reshape(-1, 3)
            points[:, :2] = points[:, :2] @ move[:, :2].T + move[:, 2]
            people.append({"pose_keypoints_2d": points.ravel().tolist()})
        name = f"clip_{frame:012d}_keypoints.json"
        (folder / "keypoints" / name).write_text(json.dumps({"people": people}), encoding="utf-8")
    writer.release()


def demo_command(inputs: Path, out: Path) -> list[object]:
    """The clip with given keypoints: tracks, fit, overlay, files and page."""
    return ["demo.py", inputs / "clip.mp4", "--keypoints", inputs / "keypoints", "--output_dir", out]


VERBS = {
    "train": Verb(lambda folder: None, train_command),
    "annotate": Verb(make_people, annotate_command),
    "prepare": Verb(make_mpi_inf_3dhp, prepare_command),
    "demo": Verb(make_clip, demo_command),
}


@dataclasses.dataclass
class Tally:
    """What came of all runs of a verb.

    Attributes:
        seconds: How long the work takes.
        kills: Signal -> how many were sent to a running process.
        codes: Signal and exit code -> how often.
        runs: How many were let through to their end.
        failures: What went wrong, in words, each with the folder that was kept.
    """

    seconds: float = 0.0
    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    codes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    runs: int = 0
    failures: list[dict[str, str]] = dataclasses.field(default_factory=list)


class Soak:
    """The runs of one verb, all in one folder after another, because paths are part of what is written.

    Args:
        name: The verb.
        folder: Emptied.
        seed: Of the moments.
    """

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self._verb, self._folder = VERBS[name], folder.resolve()
        self._rng, self._signals = np.random.default_rng(seed), itertools.cycle(SIGNALS)
        self.tally = Tally()
        shutil.rmtree(folder, ignore_errors=True)
        self._reference, self._run = self._folder / "reference", self._folder / "run"
        self._verb.make_inputs(_made(self._folder / "inputs"))

    def take_reference(self) -> None:
        """Do the work once.

        Raises:
            RuntimeError: It fails without being killed.
        """
        self._begin()
        start = time.monotonic()
        process = self._start()
        if process.wait(LASTS_AT_MOST):
            raise RuntimeError(f"the reference left with code {process.returncode}, see {self._run}/log.txt")
        self.tally.seconds = time.monotonic() - start
        if found := [*self._left_behind(), *_hidden(self._run)]:
            self._fail("reference", found)
        self._run.rename(self._reference)

    def run(self, kills: int) -> None:
        """Do it once more with so many kills at most, and compare."""
        self._begin()
        found: list[str] = []
        finished = False
        for attempt, number in enumerate(itertools.islice(self._signals, kills)):
            finished = self._start_and_kill(number, attempt == 0, found)
            if finished or found:
                break
        if not finished and not found:
            self._start_and_wait(found)
        if not found:
            found = [*_hidden(self._run), *_differences(self._reference, self._run)]
        self.tally.runs += 1
        if found:
            self._fail(f"failed_{self.tally.runs}", found)

    def _start_and_kill(self, number: signal.Signals, is_first: bool, found: list[str]) -> bool:
        """Start, or go on, and kill at a random moment; whether it was done before. What is wrong goes into `found`."""
        start, process = time.monotonic(), self._start()
        try:
            finished = process.wait(self._rng.uniform(0, self.tally.seconds)) == 0
            if is_first:  # the reference was slower, as the first often is
                self.tally.seconds = time.monotonic() - start
            if not finished:
                found.append(f"left with code {process.returncode} on its own")
        except subprocess.TimeoutExpired:
            finished = self._kill(process, number, found)
        found += self._left_behind()
        return finished

    def _start_and_wait(self, found: list[str]) -> None:
        process = self._start()
        try:
            if process.wait(LASTS_AT_MOST):
                found.append(f"left with code {process.returncode} after its kills")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found.append(f"not done after {LASTS_AT_MOST:.0f} s")
        found += self._left_behind()

    def _begin(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)
        shutil.copytree(self._folder / "inputs", self._run / "inputs")
        for name in ("out", "tmp", "cwd", "cache"):
            (self._run / name).mkdir()

    def _start(self) -> subprocess.Popen:
        script, *options = self._verb.command(self._run / "inputs", self._run / "out")
        places = {"TMPDIR": self._run / "tmp", "XDG_CACHE_HOME": self._run / "cache", "PYTHONPATH": ROOT}
        environment = os.environ | {key: str(path) for key, path in places.items()}
        with (self._run / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / str(script)), *map(str, options)],
                cwd=self._run / "cwd", env=environment, stdout=log, stderr=log, start_new_session=True,
                # What a shell starts in the background ignores Ctrl-C, and so would this.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def _kill(self, process: subprocess.Popen, number: signal.Signals, found: list[str]) -> bool:
        """Send a signal, see how the process ends, and say whether it was done nevertheless."""
        self.tally.kills[number.name] += 1
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        try:
            code = process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found.append(f"{number.name} did not end it within {ENDS_WITHIN:.0f} s")
            return False
        self.tally.codes[f"{number.name} {code}"] += 1
        importing = number is signal.SIGINT and code == 1 and "import" in _end_of(self._run / "log.txt")
        if code not in CODES[number] and not importing:  # libraries in C make an ImportError of a Ctrl-C
            found.append(f"left with code {code} after {number.name}")
        return code == 0

    def _left_behind(self) -> list[str]:
        """The run's processes that are there yet after some seconds."""
        deadline = time.monotonic() + 5
        while (left := list(_processes_with(f"TMPDIR={self._run}/tmp"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"process left behind: {name}" for name in left]

    def _fail(self, name: str, found: list[str]) -> None:
        kept = self._folder / name
        if self._run.is_dir() and name != "reference":
            self._run.rename(kept)
        for what in found:
            print(f"  FAILED: {what}; see {kept}", flush=True)
            self.tally.failures.append({"what": what, "kept": str(kept)})


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _processes_with(variable: str) -> Iterator[str]:
    """The names of the living processes that have this in their environment, whatever started them."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                yield (entry / "comm").read_text().strip()


def _hidden(run: Path) -> list[str]:
    """What does not belong to the work: hidden names anywhere, anything in the temporary and the working directory."""
    paths = [*run.rglob(".*"), *(run / "tmp").iterdir(), *(run / "cwd").iterdir()]
    return [f"left behind: {path.relative_to(run)}" for path in sorted(set(paths))]


def _differences(reference: Path, run: Path) -> list[str]:
    """Files of inputs and outputs that only one of them has, or that hold something else."""
    files = []
    for root in (reference, run):
        left_out = {path for pattern in LEFT_OUT for path in root.glob(pattern)}
        every = [path for name in ("inputs", "out") for path in (root / name).rglob("*")]
        files.append({str(path.relative_to(root)) for path in every if path.is_file() and path not in left_out})
    different = [f"only in the reference: {name}" for name in sorted(files[0] - files[1])]
    different += [f"only in the killed run: {name}" for name in sorted(files[1] - files[0])]
    states = [sorted(root.rglob("state_*.safetensors"))[-1:] for root in (reference, run)]
    pairs = [(reference / name, run / name) for name in sorted(files[0] & files[1])] + list(zip(*states, strict=False))
    return different + [f"differs: {ours.relative_to(run)}" for theirs, ours in pairs if not _same(theirs, ours)]


def _same(a: Path, b: Path) -> bool:
    if a.read_bytes() == b.read_bytes():
        return True
    if a.suffix != ".npz":
        return False
    first, second = read_npz(a, "reference"), read_npz(b, "result")
    return first.keys() == second.keys() and all(
        np.array_equal(array, second[key], equal_nan=array.dtype.kind == "f") for key, array in first.items()
    )


def _unused_shared_memory() -> set[str]:
    """Names in /dev/shm that no process has open or mapped."""
    names = {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        names = {name for name in names if f"{SHARED_MEMORY}/{name}" not in text}
    return names


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verbs", nargs="+", choices=VERBS, help="what to kill")
    parser.add_argument("--kills", type=cli.positive_int, default=100, help="of each verb, default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, default: %(default)s")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/soak"), help="default: %(default)s")
    return parser.parse_args()


def main() -> int:
    """Soak each verb; 1 if anything failed."""
    args = parse_args()
    rows, told = [], {}
    for name in args.verbs:
        shared = _unused_shared_memory()
        soak = Soak(name, args.work_dir / name, args.seed)
        soak.take_reference()
        tally = soak.tally
        print(f"{name}: {tally.seconds:.1f} s without a kill", flush=True)
        while (left := args.kills - tally.kills.total()) > 0:
            soak.run(min(left, MAY_KILL))
            print(f"{name}: {tally.kills.total()} kills, {len(tally.failures)} failures", flush=True)
        for memory in _unused_shared_memory() - shared:
            tally.failures.append({"what": f"shared memory left behind: {memory}", "kept": str(SHARED_MEMORY)})
        told[name] = vars(tally)
        counts = {number.name: str(tally.kills[number.name]) for number in SIGNALS}
        rows.append({"verb": name, **counts, "runs": str(tally.runs), "failures": str(len(tally.failures))})
        (args.work_dir / "soak.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(cli.table(rows))
    return int(any(tally["failures"] for tally in told.values()))


if __name__ == "__main__":
    cli.run(main)
