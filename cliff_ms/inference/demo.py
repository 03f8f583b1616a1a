"""Images, folders and videos in; parameters, overlays, meshes and a web page out."""

import functools
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from cliff_ms.body.files import Body
from cliff_ms.data import detections as found
from cliff_ms.data.loader import in_order
from cliff_ms.inference.finder import Finder
from cliff_ms.inference.predict import Estimate, People, Predictor
from cliff_ms.inference.video import AHEAD, Moment, Span, over_time, showings, tracks_of, watch
from cliff_ms.io.errors import InputError
from cliff_ms.io.exif import stated_focal_length
from cliff_ms.io.files import atomic_path
from cliff_ms.io.images import read_image, write_image
from cliff_ms.io.video import VideoReader, VideoWriter, is_video
from cliff_ms.runtime import StopRequest
from cliff_ms.visual.browser import Clip
from cliff_ms.visual.gltf import write_animation
from cliff_ms.visual.meshes import person_mesh, write_glb, write_obj
from cliff_ms.visual.motion import Track, write_amass, write_bvh
from cliff_ms.visual.page import PageEntry, Person, write_page
from cliff_ms.visual.render import PALETTE, render_overlay, render_side

# Of the crop's height. Of the first 200 held-out people, fitted, 95 in 100 are within 1.1 % with exact keypoints and
# 6.6 % half hidden; half of them are beyond 8 to 16 % with joints in another order. Left for right is not told apart.
_MAX_ERROR_2D = 0.1

log = logging.getLogger("cliff_ms")

FocalLengthRule = Literal["exif", "estimate"]
Colour = tuple[float, float, float]  # RGB in [0, 1]
# Of the files written, after the stem of the photo's or video's name.
_ENDINGS = r"_cliff\.npz|_overlay\.(jpg|mp4)|_side\.jpg|\.glb|(?P<person>_\d+)(\.glb|\.obj|\.bvh|_amass\.npz)"
_DRAWERS = 2  # threads that draw a video
ESTIMATED = "estimated from the image size (a diagonal field of view of 55 degrees)"


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
        separate: Also write each person of a photo as a GLB of her own.
        write_obj: The same as OBJ, which takes ten times as long.
        smooth: Fit the people of a video over time, see `fit_track`.
        span: Which part of a video.
        stop: Ends the run: of a video, what was seen so far is drawn and written.
        rows: Filled while running: one dict per person of each image, one per video.
        failed: Filled while running: files that could not be used, already reported.
        seconds: Filled while running: time per finished file.
    """

    predictor: Predictor
    body: Body
    find: Finder
    output_dir: Path
    focal_length: float | FocalLengthRule = "exif"
    separate: bool = False
    write_obj: bool = False
    smooth: bool = True
    span: Span = Span()
    stop: StopRequest = field(default_factory=StopRequest)
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
                self.stop.listen()
                if self.stop.signal is not None:
                    break
                start = time.perf_counter()
                self._remove_older(path)
                estimated = self._attempt(path, self._video if is_video(path) else self._image, path)
                if drawing is not None:
                    yield from drawing.result()
                # One image is drawn and written while the network works on the next.
                drawing = drawer.submit(self._attempt, path, *estimated) if estimated else None
                self.seconds += [time.perf_counter() - start] * len(estimated)
            if drawing is not None:
                yield from drawing.result()

    def _remove_older(self, path: Path) -> None:
        """Remove what an earlier run has written of a file of this name: it might have found other people."""
        ours = re.compile(f"{re.escape(path.stem)}({_ENDINGS})")
        for file in list(self.output_dir.iterdir()):
            match = ours.fullmatch(file.name)
            # 'a_1.glb' may be person 1 of 'a.jpg' or everybody of 'a_1.jpg'.
            if match and not (match["person"] and self._output(path, f"{match['person'][1:]}_cliff.npz").exists()):
                file.unlink()

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
        _warn_of_misfits(path, dict(enumerate(people.error_2d)))
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
        colours = [_colour(k) for k in range(len(people))]
        overlay, side = self._overlay(image, people, colours), self._side(people, colours)
        write_image(self._output(path, "overlay.jpg"), overlay)
        write_image(self._output(path, "side.jpg"), side)
        self._save(path, [people.to_arrays(path.name)])
        files = {"parameters": f"{path.stem}_cliff.npz"} | self._write_meshes(path, people, colours)
        rows = describe(people)
        self.rows += [{"file": path.name, **row} for row in rows]
        shown = [Person(*person) for person in zip(people.vertices, colours, rows, strict=True)]
        return PageEntry(path.name, overlay, side, shown, files, note)

    def _video(self, path: Path) -> Callable[[], PageEntry]:
        moments, focal_source = self._watch(path)
        clip, arrays, poster = self._draw_video(path, moments)
        moments = moments[: len(clip.frames)]
        joined = self._save(path, arrays)
        tracks = tracks_of(moments, self.body, _colour)
        files = {"parameters": f"{path.stem}_cliff.npz"}
        files |= self._write_motion(path, tracks, moments[0].people, clip.fps)
        self.rows.append({"file": path.name, "person": f"{len(tracks)} in {len(moments)} frames"})
        note = f"people {self.find.source}; focal length {moments[0].people.focal_length:.0f} px, {focal_source}"
        note += _fit_note(joined["fit_sigma"], joined["error_2d"])
        log.info("%s: %s", path, note)
        errors = {track.number: joined["error_2d"][joined["track_id"] == track.number] for track in tracks}
        _warn_of_misfits(path, {person: _usual(error) for person, error in errors.items()})
        people = [Person(track, track.colour, _describe_track(track, joined)) for track in tracks]
        entry = PageEntry(path.name, poster, None, people, files, note, clip)
        return lambda: entry

    def _watch(self, path: Path) -> tuple[list[Moment], str]:
        """Everybody in a video, until it ends or the run is stopped, and where the focal length comes from."""
        focal_length, focal_source = (
            (self.focal_length, "as given") if isinstance(self.focal_length, float) else (None, ESTIMATED)
        )
        moments = []
        with VideoReader(path) as reader:
            find = self.find.in_video(path)
            people = self.find.numbers, self.find.threads
            watched = watch(reader, self.span, find, self.predictor, focal_length, *people)
            for moment in tqdm(watched, f"{path.name}: finding", leave=False):
                moments.append(moment)
                self.stop.listen()
                if self.stop.signal is not None:
                    break
        if self.smooth:
            moments = over_time(moments, self.predictor, self.span.longest_absence(reader.fps))
        return moments, focal_source

    def _draw_video(self, path: Path, moments: list[Moment]) -> tuple[Clip, list[dict[str, np.ndarray]], np.ndarray]:
        """Write the overlay, until the run is stopped: what it shows, its rows of the npz, a frame to stand for it."""
        arrays, poster, is_empty = [], None, True
        output = self._output(path, "overlay.mp4")
        times = np.array([moment.time for moment in moments])
        with (
            VideoReader(path) as reader,
            VideoWriter(output, fps := _rate(times, reader.fps), reader.img_hw, path, times[0]) as writer,
            ThreadPoolExecutor(_DRAWERS) as drawers,
        ):
            seen = zip(moments, self.span.frames(reader), strict=False)
            frames = ((image, self._pose(moment), moment) for moment, (_, _, image) in seen)
            drawn = in_order(drawers, self._draw_moment, frames, AHEAD)
            stopped_before = self.stop.signal is not None
            shown_for = showings(times, fps)
            for people, overlay, moment in tqdm(drawn, f"{path.name}: drawing", len(moments), leave=False):
                for _ in range(shown_for[len(arrays)]):
                    writer.write(overlay)
                arrays.append(_moment_arrays(people, moment, path.name))
                if poster is None or (is_empty and len(people)):  # the first frame, or the first with somebody in it
                    poster, is_empty = overlay, not len(people)
                if self.stop.signal is not None and not stopped_before:
                    break
        numbers = np.array([moment.frame for moment in moments[: len(arrays)]])
        starts = np.cumsum(shown_for[: len(arrays)]) - shown_for[: len(arrays)]
        return Clip(output.name, fps, numbers, starts), arrays, poster

    def _write_meshes(self, path: Path, people: People, colours: Sequence[Colour]) -> dict[str, str]:
        """The people of a photo in 3D: what is in a file -> its name."""
        meshes = {
            f"person_{k}": person_mesh(vertices, self.body.faces, colours[k])
            for k, vertices in enumerate(people.vertices)
        }
        scenes = {"everybody (GLB)": (f"{path.stem}.glb", meshes)} if meshes else {}
        if self.separate:
            scenes |= {
                f"person {k} (GLB)": (f"{path.stem}_{k}.glb", {name: mesh})
                for k, (name, mesh) in enumerate(meshes.items())
            }
        for name, scene in scenes.values():
            write_glb(self.output_dir / name, scene, people.focal_length, people.img_hw)
        files = {title: name for title, (name, _) in scenes.items()}
        if self.write_obj:
            for k, mesh in enumerate(meshes.values()):
                files[f"person {k} (OBJ)"] = f"{path.stem}_{k}.obj"
                write_obj(self.output_dir / f"{path.stem}_{k}.obj", mesh)
        return files

    def _write_motion(self, path: Path, tracks: list[Track], estimate: Estimate, fps: float) -> dict[str, str]:
        """The people of a video for animation programs: what is in a file -> its name."""
        if not tracks:
            return {}
        files = {"everybody, animated (GLB)": f"{path.stem}.glb"}
        write_animation(self.output_dir / f"{path.stem}.glb", tracks, estimate.focal_length, estimate.img_hw, fps)
        for track in tracks:
            name = f"{path.stem}_{track.number}"
            write_amass(self.output_dir / f"{name}_amass.npz", track, fps, self.body.gender)
            write_bvh(self.output_dir / f"{name}.bvh", track, fps)
            files |= {
                f"person {track.number} (AMASS)": f"{name}_amass.npz",
                f"person {track.number} (BVH)": f"{name}.bvh",
            }
        return files

    def _pose(self, moment: Moment) -> People:
        people = self.predictor.pose(moment.people)
        self.stop.listen()
        return people

    def _draw_moment(self, image: np.ndarray, people: People, moment: Moment) -> tuple[People, np.ndarray, Moment]:
        return people, self._overlay(image, people, [_colour(track) for track in moment.tracks]), moment

    def _overlay(self, image: np.ndarray, people: People, colours: Sequence[Colour]) -> np.ndarray:
        meshes = list(zip(people.vertices, colours, strict=True))
        return render_overlay(image, meshes, self.body.faces, people.focal_length)

    def _side(self, people: People, colours: Sequence[Colour]) -> np.ndarray:
        meshes = list(zip(people.vertices, colours, strict=True))
        return render_side(meshes, self.body.faces, people.focal_length, people.img_hw)

    def _save(self, path: Path, arrays: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        joined = {key: np.concatenate([a[key] for a in arrays]) for key in arrays[0]}
        with atomic_path(self._output(path, "cliff.npz")) as temporary:
            np.savez_compressed(temporary, **joined)
        return joined

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


def _describe_track(track: Track, arrays: dict[str, np.ndarray]) -> dict:
    """What the page says of a person of a video, over all frames; the last two as in `describe`."""
    own = arrays["track_id"] == track.number
    depths = track.translation[:, 2] + track.rig.joints[0, 2]
    quality = {"2D error (%)": arrays["error_2d"][own], "fit noise (%)": arrays["fit_sigma"][own]}
    return {
        "person": track.number,
        "frames": len(track.frames),
        "from (s)": float(track.times[0]),
        "to (s)": float(track.times[-1]),
        "nearest (m)": float(depths.min()),
        "farthest (m)": float(depths.max()),
        **{name: 100 * float(np.nanmean(values)) for name, values in quality.items() if np.isfinite(values).any()},
    }


def _fit_note(fit_sigma: np.ndarray, error_2d: np.ndarray) -> str:
    """Whether people were fitted, and how well keypoints and bodies go together, for the notes."""
    if np.isnan(error_2d).all():
        return ""
    error = f"joints {100 * np.nanmean(error_2d):.1f} % of the crop's height from the keypoints"
    if np.isnan(fit_sigma).all():
        return f"; {error}"
    return f"; bodies fitted to the keypoints: {error}, noise {100 * np.nanmean(fit_sigma):.1f} %"


def _warn_of_misfits(path: Path, error_2d: Mapping[int, float]) -> None:
    """Say whose body does not go with the keypoints that it was made of: number -> `People.error_2d`."""
    bad = {person: error for person, error in error_2d.items() if error > _MAX_ERROR_2D}
    if bad:
        who = ", ".join(f"{person} ({100 * error:.0f} %)" for person, error in bad.items())
        log.warning(
            "%s: do not trust person %s: the joints of the body are that far from the keypoints, in %% of the crop's "
            "height. Are these of this image, and is the order of the joints the one that was read?",
            path, who,
        )  # fmt: skip


def _usual(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _moment_arrays(people: People, moment: Moment, name: str) -> dict[str, np.ndarray]:
    """The rows of a frame in the npz of a video."""
    count = len(people)
    return people.to_arrays(f"{name}/{moment.frame:06d}", moment.frame) | {
        "frame": np.full(count, moment.frame),
        "time_s": np.full(count, moment.time),
        "track_id": moment.tracks,
    }


def _rate(times: np.ndarray, stated: float) -> float:
    """Frames a second of an overlay, by the usual distance of frames at times (T,) s, or what is stated of one."""
    if len(times) < 2:
        return stated
    gaps = np.diff(times)
    usual = np.median(gaps)
    # Their mean: some containers round times to ms, and 33 ms in place of 33.3 is a frame too many in a hundred.
    return float(1 / gaps[np.abs(gaps - usual) <= usual / 2].mean())


def _colour(k: int) -> Colour:
    return PALETTE[k % len(PALETTE)]
