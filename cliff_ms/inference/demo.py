"""Images, folders and videos in; parameters, overlays, meshes and a web page out."""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from cliff_ms.body.files import Body
from cliff_ms.data import detections as found
from cliff_ms.data.detections import Detections
from cliff_ms.inference.detectors import Detector
from cliff_ms.inference.predict import People, Predictor
from cliff_ms.io.errors import InputError
from cliff_ms.io.exif import stated_focal_length
from cliff_ms.io.files import atomic_path
from cliff_ms.io.images import read_image, write_image
from cliff_ms.io.video import VideoReader, VideoWriter, is_video
from cliff_ms.visual.meshes import person_mesh, write_glb, write_obj
from cliff_ms.visual.page import PageEntry, Person, write_page
from cliff_ms.visual.render import PALETTE, render_overlay, render_side

log = logging.getLogger("cliff_ms")

FocalLengthRule = Literal["exif", "estimate"]
ESTIMATED = "estimated from the image size (a diagonal field of view of 55 degrees)"


@dataclass(frozen=True)
class Finder:
    """Where people are: given boxes, given keypoints, both, or a detector.

    Attributes:
        boxes: What `read_boxes` returned, or None.
        keypoints: What `read_keypoints` returned, or None.
        detector: A detector, or None.
        boxes_file: For messages.
        keypoints_file: For messages.
    """

    boxes: dict[str, Detections] | None = None
    keypoints: dict[str, Detections] | None = None
    detector: Detector | None = None
    boxes_file: Path | None = None
    keypoints_file: Path | None = None

    def __call__(self, image: np.ndarray, path: Path, frame: int | None = None) -> Detections:
        """The people in an image, or in frame `frame` of a video.

        Raises:
            InputError: No entry for it, boxes outside it, or boxes and keypoints that do not pair up.
        """
        if self.detector is not None:
            return self.detector.find(image)
        boxes = self._look_up(self.boxes, path, frame, self.boxes_file)
        people = self._look_up(self.keypoints, path, frame, self.keypoints_file)
        if boxes is not None and people is not None:
            people = found.pair(boxes, people, str(path))
        people = people or boxes
        found.check_boxes_in_image(people.boxes, image.shape[:2], str(path))
        return people

    @property
    def source(self) -> str:
        """Where the people come from, in words."""
        if self.detector is not None:
            return f"found by {self.detector.name}"
        given = {"boxes": self.boxes, "keypoints": self.keypoints}
        return " and ".join(name for name, people in given.items() if people is not None) + " as given"

    @staticmethod
    def _look_up(
        people: dict[str, Detections] | None, path: Path, frame: int | None, source: Path | None
    ) -> Detections | None:
        if people is None:
            return None
        if frame is not None:
            # As OpenPose numbers the frames of a video; an entry for the video itself holds for all its frames.
            name = path.with_name(f"{path.stem}_{frame:012d}")
            try:
                return found.for_image(people, name, source)
            except InputError as error:
                missing_frame = error
            try:
                return found.for_image(people, path, source)
            except InputError:
                raise missing_frame from None
        return found.for_image(people, path, source)


@dataclass
class Demo:
    """One run over a list of files.

    Attributes:
        predictor: What estimates the bodies.
        body: The body model.
        find: Where the people are.
        output_dir: Existing folder.
        focal_length: px; 'exif' for what an image's file states, where that can be trusted, and else estimated from the
            image's size; 'estimate' for the latter in any case.
        write_obj: Also write each person of an image as OBJ, which takes ten times as long as GLB.
        rows: Filled while running: one dict per person of each image, one per video.
        failed: Filled while running: files that could not be used, already reported.
        seconds: Filled while running: time per finished file.
    """

    predictor: Predictor
    body: Body
    find: Finder
    output_dir: Path
    focal_length: float | FocalLengthRule = "exif"
    write_obj: bool = False
    rows: list[dict] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def run(self, inputs: list[Path], note: str) -> Path:
        """Work through the files, one at a time; a bad one is reported and the others are finished.

        Args:
            inputs: Images and videos.
            note: Written below the title of the page.

        Returns:
            The page.
        """
        one_image = len(inputs) == 1 and not is_video(inputs[0])
        if self.find.keypoints is not None and found.ANY_IMAGE in self.find.keypoints and not one_image:
            raise InputError(
                f"{self.find.keypoints_file} holds the keypoints of one image: for several, or for a video, give a "
                "folder of such files, one per image or frame."
            )
        page = self.output_dir / "index.html"
        write_page(page, self._entries(inputs), self.body.faces, "CLIFF", note)
        return page

    def _entries(self, inputs: list[Path]) -> Iterator[PageEntry]:
        with ThreadPoolExecutor(max_workers=1) as drawer:
            drawing = None
            for path in tqdm(inputs, unit="file", disable=len(inputs) == 1 and not is_video(inputs[0])):
                start = time.perf_counter()
                estimated = self._attempt(path, self._video if is_video(path) else self._image, path)
                if drawing is not None:
                    yield from drawing.result()
                # One image is drawn and written while the network works on the next.
                drawing = drawer.submit(self._attempt, path, *estimated) if estimated else None
                self.seconds += [time.perf_counter() - start] * len(estimated)
            if drawing is not None:
                yield from drawing.result()

    def _attempt(self, path: Path, work: Callable, *arguments: object) -> list:
        """The result of some work on a file, or nothing after reporting what is wrong with the file."""
        try:
            return [work(*arguments)]
        except InputError as error:
            log.error("error: %s", error)
            self.failed.append(path)
            return []

    def _image(self, path: Path) -> Callable[[], PageEntry]:
        image = read_image(path)
        focal_length, focal_source = self._focal_length(path, image.shape[:2])
        people = self.predictor(image, self.find(image, path), focal_length)
        count = f"{len(people)} people" if len(people) > 1 else ("1 person" if len(people) else "nobody")
        note = f"{count}, {self.find.source}; focal length {people.focal_length:.0f} px, {focal_source}"
        note += _fit_note(people.fit_sigma, people.error_2d)
        log.info("%s: %s", path, note)
        return functools.partial(self._draw_image, path, image, people, note)

    def _focal_length(self, path: Path, img_hw: tuple[int, ...]) -> tuple[float | None, str]:
        """What the predictor is given, and where it comes from, in words."""
        if isinstance(self.focal_length, float):
            return self.focal_length, "as given"
        stated = stated_focal_length(path, img_hw)
        if stated is None:
            return None, ESTIMATED
        if self.focal_length == "exif" and not stated.doubt:
            return stated.px, stated.source
        why = stated.doubt or "--focal_length exif takes it"
        return None, f"{ESTIMATED}, not {stated.px:.0f} px ({stated.source}; {why})"

    def _draw_image(self, path: Path, image: np.ndarray, people: People, note: str) -> PageEntry:
        overlay, side = self._overlay(image, people), self._side(people)
        write_image(self._output(path, "overlay.jpg"), overlay)
        write_image(self._output(path, "side.jpg"), side)
        self._save(path, [people.to_arrays(path.name)])
        files = {"parameters": f"{path.stem}_cliff.npz"}
        for k, vertices in enumerate(people.vertices):
            mesh = person_mesh(vertices, self.body.faces, _colour(k))
            write_glb(self._output(path, f"{k}.glb"), [mesh])
            files[f"person {k} (GLB)"] = f"{path.stem}_{k}.glb"
            if self.write_obj:
                write_obj(self._output(path, f"{k}.obj"), mesh)
                files[f"person {k} (OBJ)"] = f"{path.stem}_{k}.obj"
        rows = describe(people)
        self.rows += [{"file": path.name, **row} for row in rows]
        return PageEntry(path.name, overlay, side, _page_people(people, rows), files, note=note)

    def _video(self, path: Path) -> Callable[[], PageEntry]:
        arrays, shown = [], None
        focal_length, focal_source = (
            (self.focal_length, "as given") if isinstance(self.focal_length, float) else (None, ESTIMATED)
        )
        output = self._output(path, "overlay.mp4")
        with VideoReader(path) as reader, VideoWriter(output, reader.fps, reader.img_hw) as writer:
            for frame, image in enumerate(tqdm(reader, path.name, reader.frame_count or None, leave=False)):
                people = self.predictor(image, self.find(image, path, frame), focal_length)
                overlay = self._overlay(image, people)
                writer.write(overlay)
                arrays.append(people.to_arrays(f"{path.name}/{frame:06d}", frame))
                if shown is None or (len(people) and not len(shown[0])):
                    shown = people, overlay  # the first frame with somebody in it stands for the video
        self._save(path, arrays)
        people, overlay = shown
        count = sum(len(a["shape"]) for a in arrays)
        self.rows.append({"file": path.name, "person": f"{count} in {len(arrays)} frames"})
        note = f"people {self.find.source}; focal length {people.focal_length:.0f} px, {focal_source}"
        note += _fit_note(*(np.concatenate([a[key] for a in arrays]) for key in ("fit_sigma", "error_2d")))
        log.info("%s: %s", path, note)
        entry = PageEntry(
            path.name,
            overlay,
            self._side(people),
            _page_people(people, describe(people)),
            {"parameters": f"{path.stem}_cliff.npz"},
            output.name,
            note,
        )
        return lambda: entry

    def _overlay(self, image: np.ndarray, people: People) -> np.ndarray:
        return render_overlay(image, _meshes(people), self.body.faces, people.focal_length)

    def _side(self, people: People) -> np.ndarray:
        return render_side(_meshes(people), self.body.faces, people.focal_length, people.img_hw)

    def _save(self, path: Path, arrays: list[dict[str, np.ndarray]]) -> None:
        joined = {key: np.concatenate([a[key] for a in arrays]) for key in arrays[0]}
        with atomic_path(self._output(path, "cliff.npz")) as temporary:
            np.savez_compressed(temporary, **joined)

    def _output(self, path: Path, ending: str) -> Path:
        return self.output_dir / f"{path.stem}_{ending}"


def describe(people: People) -> list[dict]:
    """What the tables say of each person: number, score, box in px, where the pelvis is, in m, and how far to trust it.

    `People.error_2d` and, of fitted people, `People.fit_sigma` are in percent of the crop's height.
    """
    rows = []
    quality = {"2D error (%)": people.error_2d, "fit noise (%)": people.fit_sigma}
    for k in range(len(people)):
        rows.append(
            {
                "person": k,
                "score": float(people.detections.scores[k]),
                "box (px)": people.detections.boxes[k],
                "distance (m)": float(people.joints[k, 0, 2]),
                "left to right (m)": float(people.joints[k, 0, 0]),
                **{name: 100 * float(values[k]) for name, values in quality.items() if np.isfinite(values[k])},
            }
        )
    return rows


def _fit_note(fit_sigma: np.ndarray, error_2d: np.ndarray) -> str:
    """Whether people were fitted, and how well keypoints and bodies go together, for the notes."""
    if np.isnan(error_2d).all():
        return ""
    error = f"joints {100 * np.nanmean(error_2d):.1f} % of the crop's height from the keypoints"
    if np.isnan(fit_sigma).all():
        return f"; {error}"
    return f"; bodies fitted to the keypoints: {error}, noise {100 * np.nanmean(fit_sigma):.1f} %"


def _page_people(people: People, rows: list[dict]) -> list[Person]:
    return [Person(people.vertices[k], _colour(k), row) for k, row in enumerate(rows)]


def _meshes(people: People) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    return [(vertices, _colour(k)) for k, vertices in enumerate(people.vertices)]


def _colour(k: int) -> tuple[float, float, float]:
    return PALETTE[k % len(PALETTE)]
