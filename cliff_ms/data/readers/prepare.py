"""A data set as it is downloaded, checked, read and written as one annotation file."""

from dataclasses import dataclass
from pathlib import Path

from cliff_ms.data.annotation_files import save_annotations
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.label_checks import Findings, examine
from cliff_ms.data.readers import DATASETS
from cliff_ms.data.readers.extraction import extract
from cliff_ms.data.readers.fits import load_fits, merge
from cliff_ms.data.readers.rows import Part, check_not_empty, collect, remove_parts, summary, to_annotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir


@dataclass(frozen=True)
class PrepareJob:
    """What to prepare.

    Attributes:
        dataset: A key of `readers.DATASETS`.
        root: Folder that it was unpacked into.
        split: One of its splits.
        output: The npz to write.
        options: Keyword arguments of its `read`.
        fits: Bodies to merge, see `fits.load_fits`.
        fits_rows: The same.
    """

    dataset: str
    root: Path
    split: str
    output: Path
    options: dict[str, object]
    fits: Path | None = None
    fits_rows: Path | None = None

    def check(self) -> tuple[list[Part], Annotations | None]:
        """Check everything that was given, before anything slow happens.

        Returns:
            The parts to read, and the bodies to merge.

        Raises:
            InputError: What cannot be used.
        """
        if self.output.suffix != ".npz":
            raise InputError(f"--output '{self.output}' must end in .npz.")
        fits = load_fits(self.fits, self.fits_rows, self.output)
        parts = DATASETS[self.dataset].read(self.root, self.split, **self.options)
        prepare_output_dir(self.output.parent)
        return parts, fits


def prepare(job: PrepareJob) -> str:
    """Read, extract pictures, merge, write.

    Args:
        job: What to prepare. What an interrupted run has read is taken from `OUTPUT.parts`, and pictures that are there
            are not extracted again.

    Returns:
        What was kept, and what was left out because it cannot be read or used, and why; a line each.

    Raises:
        InputError: What cannot be used, no part that can be read, labels that mean something else, no row left, or no
            body that belongs to any.
    """
    parts, fits = job.check()
    settings = {"dataset": job.dataset, "root": job.root, "split": job.split, **job.options}
    rows = collect(parts, job.output, settings)
    if "video" in rows.columns:
        rows = extract(rows, job.root)
        check_not_empty(rows, job.root)
    findings = Findings()
    examine(to_annotations(rows), findings)
    if findings.wrong:
        raise InputError(f"{job.root}: {findings.wrong[0]}; is it the data set's own release?")
    rows = rows.keep({reason: ~bad for reason, bad in findings.bad.items()})
    annotations, lines = to_annotations(rows), []
    if fits is not None:
        annotations, merged = merge(annotations, fits)
        lines = [f"merged {merged} of {int(fits.has_smpl.sum())} bodies of {job.fits}"]
    save_annotations(job.output, annotations)
    remove_parts(job.output)
    return "\n".join([*lines, summary(rows, annotations, job.root)])
