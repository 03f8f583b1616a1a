"""Which rows show one person in frames that follow each other: what accelerations are scored on.

Files of 3DPW name their images `<sequence>/image_<frame>.jpg`, but nobody's person. A person has one gender and one
shape through a sequence there, and no two people share both: these tell people apart, in whatever order rows are.
"""

import re

import numpy as np

from cliff_ms.data.annotations import Annotations

_FRAME = re.compile(r"(\d+)\.[^./]+$")  # of an image's name
_SHORTEST = 3  # frames, which an acceleration takes


def frame_runs(people: Annotations) -> list[np.ndarray]:
    """Find the frames in succession of each person.

    A sequence in which somebody is twice in a frame is left out: its people cannot be told apart.

    Args:
        people: The rows.

    Returns:
        Rows of one person in frames that follow each other, three at least; each row once at most.
    """
    genders = np.full(len(people), "n") if people.gender is None else people.gender
    rows_of: dict[tuple[str, str, bytes], dict[int, int]] = {}  # a person of a sequence -> frame -> row
    mixed = set()
    for row, name in enumerate(people.image_names.tolist()):
        if number := _FRAME.search(name):
            sequence, frame = name.rpartition("/")[0], int(number[1])
            frames = rows_of.setdefault((sequence, str(genders[row]), people.betas[row].tobytes()), {})
            if frame in frames:
                mixed.add(sequence)
            frames[frame] = row
    runs = []
    for (sequence, *_), frames in rows_of.items():
        numbers = np.sort(list(frames))
        parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        if sequence not in mixed:
            runs += [np.array([frames[k] for k in part.tolist()]) for part in parts if len(part) >= _SHORTEST]
    return runs
