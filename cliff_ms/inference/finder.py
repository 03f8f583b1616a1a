"""Where the people of photos and videos are: as the user says, or as a detector finds them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.data import detections as found
from cliff_ms.data.detections import Detections
from cliff_ms.inference.detectors import Detector

FindInFrame = Callable[[np.ndarray, int], Detections]  # image (H, W, 3) uint8 RGB and the frame's number


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

    def __call__(self, image: np.ndarray, path: Path) -> Detections:
        """The people in a photo.

        Raises:
            InputError: No entry for it, people of an image of another size, boxes outside it, or boxes and keypoints
                that do not pair up.
        """
        if self.detector is not None:
            return self.detector.find(image)
        boxes, keypoints = (
            None if people is None else found.for_image(people, path, file) for people, file in self._given()
        )
        for given in filter(None, (boxes, keypoints)):
            found.check_stated_size(given, image.shape[:2], str(path))
        people = self._paired(boxes, keypoints, str(path))
        found.check_boxes_in_image(people.boxes, image.shape[:2], str(path))
        return people

    def in_video(self, path: Path) -> FindInFrame:
        """Where the people of a video's frames are.

        Raises:
            InputError: No entry for any of them; when called, boxes and keypoints that do not pair up.
        """
        if self.detector is not None:
            return lambda image, frame: self.detector.find(image)
        boxes_in, keypoints_in = (
            (lambda frame: None) if people is None else found.for_frames(people, path, file)
            for people, file in self._given()
        )
        return lambda image, frame: self._paired(boxes_in(frame), keypoints_in(frame), "boxes and keypoints")

    @property
    def numbers(self) -> set[int]:
        """Those that the keypoints file gives people."""
        each = (self.keypoints or {}).values()
        return {int(number) for people in each if people.ids is not None for number in people.ids if number >= 0}

    @property
    def threads(self) -> int:
        """How many may look for people at once."""
        return self.detector.threads if self.detector is not None else 1

    @property
    def source(self) -> str:
        """Where the people come from, in words."""
        if self.detector is not None:
            return f"found by {self.detector.name}"
        given = {"boxes": self.boxes, "keypoints": self.keypoints}
        return " and ".join(name for name, people in given.items() if people is not None) + " as given"

    def _given(self) -> tuple[tuple[dict[str, Detections] | None, Path | None], ...]:
        return (self.boxes, self.boxes_file), (self.keypoints, self.keypoints_file)

    @staticmethod
    def _paired(boxes: Detections | None, keypoints: Detections | None, where: str) -> Detections:
        if boxes is not None and keypoints is not None:
            return found.pair(boxes, keypoints, where)
        return keypoints or boxes
