"""Files that users name: whatever is wrong with them is one sentence; what we write does not replace what they gave."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import (
    atomic_path,
    check_not_overwritten,
    claim_folder,
    prepare_output_dir,
    read_npy,
    read_npz,
    require_file,
)


def test_damaged_archives_of_arrays_are_refused(tmp_path):
    """Whichever byte is wrong, the arrays come as they were or not at all."""
    path, array = tmp_path / "a.npz", np.arange(300.0).reshape(20, 15)
    np.savez_compressed(path, a=array)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in (*range(120), *range(len(good) - 120, len(good))):
        damaged = bytearray(good)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            found = read_npz(path, "Boxes file")
        except InputError as error:
            assert str(error).startswith(f"Boxes file '{path}' is damaged or not an npz file of plain arrays")
            refused += 1
        else:
            assert all(np.array_equal(each, array) for each in found.values())
    assert refused > 120
    np.savez(path, a=np.array([{}]), b=array)
    with pytest.raises(InputError, match="Object arrays"):
        read_npz(path, "Boxes file")
    assert read_npz(path, "Boxes file", ("b", "c")).keys() == {"b"}


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'", b"PK\x03\x04"]
)
def test_what_is_no_array_is_refused(tmp_path, content):
    (tmp_path / "J_regressor_h36m.npy").write_bytes(content)
    with pytest.raises(InputError, match="'.*J_regressor_h36m.npy' is damaged or not an npy file of numbers"):
        read_npy(tmp_path / "J_regressor_h36m.npy", "Joint regressor")
    np.save(tmp_path / "J_regressor_h36m.npy", np.array(["a"]))
    with pytest.raises(InputError, match="npy file of numbers"):
        read_npy(tmp_path / "J_regressor_h36m.npy", "Joint regressor")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("a")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)  # file modes do not bind root, whom tests may run as
    with pytest.raises(InputError, match="a.yaml' cannot be read: Permission denied"):
        require_file(path, "Configuration")


def test_nothing_given_is_overwritten(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    check_not_overwritten(tmp_path / "b.npz", {"--fits": tmp_path / "a.npz", "--fits_rows": None})
    with pytest.raises(InputError, match="given with --annotations and would be overwritten"):
        check_not_overwritten(tmp_path / "a.npz", {"--annotations": tmp_path / "link.npz"})


def test_a_folder_belongs_to_its_settings(tmp_path):
    claim_folder(tmp_path, {"steps": 5, "names": ["a"]})
    claim_folder(tmp_path, {"steps": 5, "names": ["a"]})
    with pytest.raises(InputError, match="made with other settings: names differ"):
        claim_folder(tmp_path, {"steps": 5, "names": []})


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    code = "import os; from cliff_ms.io.files import atomic_path\nwith atomic_path('a.npz'): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / ".mine").mkdir()
    with atomic_path(tmp_path / "b.npz") as temporary:
        temporary.touch()
        prepare_output_dir(tmp_path)
        assert temporary.exists() and not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "b.npz"]
