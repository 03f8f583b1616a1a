"""Body files: the formats people have, and what is refused."""

import os
import pickle
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from cliff_ms.body.files import load_body
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import H36M17
from tests.toys.body import toy_arrays, toy_regressor

NOT_ARRAYS = {"J": np.zeros((24, 3)), "bs_style": "lbs", "bs_type": "lrotmin"}


@pytest.fixture
def chumpy(monkeypatch):
    """Stand-ins for chumpy's classes, to write pickles as the published SMPL files are written."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    modules["chumpy.ch"].Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    modules["chumpy.reordering"].Select = type("Select", (), {"__module__": "chumpy.reordering"})
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def ch(array):
        made = modules["chumpy.ch"].Ch()
        made.__dict__ = {"x": array}
        return made

    def select(array):
        made = modules["chumpy.reordering"].Select()
        made.__dict__ = {"a": ch(array.T.copy()), "idxs": np.arange(array.size).reshape(array.T.shape).T.ravel(),
                         "preferred_shape": array.shape}  # fmt: skip
        return made

    return ch, select


def write_pickle(path, arrays):
    with open(path, "wb") as file:
        pickle.dump(arrays, file, protocol=2)
    return path


def assert_same(body, arrays):
    for field, key in [("v_template", "v_template"), ("shapedirs", "shapedirs"), ("posedirs", "posedirs"),
                       ("joint_regressor", "J_regressor"), ("weights", "weights"), ("faces", "f")]:  # fmt: skip
        got = getattr(body, field)
        np.testing.assert_array_equal(got, np.asarray(arrays[key]).astype(got.dtype))


def test_npz_round_trip(tmp_path):
    arrays = toy_arrays(betas=300)
    np.savez(tmp_path / "toy.npz", **arrays)
    body = load_body(tmp_path / "toy.npz")
    assert_same(body, arrays)
    assert (body.name, body.gender, body.parents[:5]) == ("toy", "neutral", (-1, 0, 0, 0, 1))


@pytest.mark.parametrize(
    ("file_name", "gender"),
    [
        ("SMPL_FEMALE.pkl", "female"),
        ("basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "male"),
        ("basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "neutral"),
    ],
)
def test_original_smpl_pickle_with_chumpy_and_sparse_arrays(tmp_path, chumpy, monkeypatch, file_name, gender):
    ch, select = chumpy
    arrays = toy_arrays(vertices=6890)
    del arrays["extra_vertex_ids"]
    stored = arrays | NOT_ARRAYS
    stored |= {"shapedirs": ch(arrays["shapedirs"]), "v_template": select(arrays["v_template"])}
    stored["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    path = write_pickle(tmp_path / file_name, stored)
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)
    body = load_body(path)
    assert_same(body, arrays)
    assert (body.name, body.gender) == ("smpl", gender)
    assert body.extra_vertex_ids[0] == 332  # SMPL's nose


def test_python_2_pickle_with_latin1_strings(tmp_path):
    """Protocol 0 as Python 2 wrote it: byte strings above 127 inside the arrays."""
    arrays = toy_arrays(vertices=30)
    path = write_pickle(tmp_path / "SMPL_NEUTRAL.pkl", arrays)
    python3 = path.read_bytes()
    assert b"_codecs" in python3
    assert_same(load_body(path), arrays)


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "evil.pkl", toy_arrays() | {"extra": Evil()})
    with pytest.raises(InputError, match=r"names '(posix|nt).system'.*refused"):
        load_body(path)
    assert not (tmp_path / "was_run").exists()


def test_regressors_come_from_beside_the_file_and_must_fit(tmp_path):
    np.savez(tmp_path / "toy.npz", **toy_arrays(vertices=97))
    regressor = toy_regressor(H36M17)
    np.save(tmp_path / "J_regressor_h36m.npy", regressor)
    body = load_body(tmp_path / "toy.npz")
    assert set(body.regressors) == {"h36m"} and body.regressors["h36m"].shape == (17, 97)
    np.save(tmp_path / "J_regressor_h36m.npy", np.full((17, 6890), 1 / 6890))
    with pytest.raises(InputError, match=r"J_regressor_h36m.npy.*\(17, 97\).*\(17, 6890\)"):
        load_body(tmp_path / "toy.npz")

    legs_of_the_data_set = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]  # Human3.6M's own order: the right leg comes first
    head_first = [*range(9), 10, 9, *range(11, 17)]
    for order, problem in (
        (legs_of_the_data_set, "'left_hip' is not left of"),
        (head_first, "'head_top' is not above"),
    ):
        np.save(tmp_path / "J_regressor_h36m.npy", regressor[order])
        with pytest.raises(InputError, match=rf"J_regressor_h36m.npy.*{problem}.*another order than pelvis, left_hip"):
            load_body(tmp_path / "toy.npz")


def broken(**changes):
    arrays = toy_arrays() | changes
    return {key: value for key, value in arrays.items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (broken(weights=None), "key 'weights' is missing"),
        (broken(posedirs=np.zeros((97, 3, 9))), r"'posedirs' must have shape \(97, 3, 207\), but got \(97, 3, 9\)"),
        (broken(v_template=np.full((97, 3), np.nan)), "'v_template' holds values that are not finite"),
        (broken(extra_vertex_ids=None), "must hold 'extra_vertex_ids'"),
        (broken(extra_vertex_ids=np.full(21, 97)), "21 numbers from 0 to 96"),
    ],
)
def test_broken_content_is_named(tmp_path, arrays, message):
    np.savez(tmp_path / "toy.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_body(tmp_path / "toy.npz")


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_truncated_and_foreign_files_are_refused(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez(whole, **toy_arrays())
    else:
        write_pickle(whole, toy_arrays())
    for content in (whole.read_bytes()[: whole.stat().st_size // 2], b"", b"not a body at all"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match="truncated"):
            load_body(path)
    with pytest.raises(InputError, match="https://smpl.is.tue.mpg.de"):
        load_body(tmp_path / f"missing{suffix}")
    with pytest.raises(InputError, match="ends in '.txt'"):
        load_body(write_pickle(tmp_path / "body.txt", {}))
