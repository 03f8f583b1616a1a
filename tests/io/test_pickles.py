"""No pickle runs anything, whatever it names and whichever reader opens it; arrays come back as they were."""

import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cliff_ms.data.readers.foreign_pickles import read_dataframe, read_tensors
from cliff_ms.io.errors import InputError
from cliff_ms.io.pickles import read_pickle

READERS = [read_pickle, read_dataframe, read_tensors]
MODULES = (
    "os posix builtins __builtin__ subprocess numpy torch copyreg scipy.sparse codecs numpy.core.multiarray "
    "torch._utils torch.storage pathlib importlib cliff_ms.io.pickles"
).split()
NAMES = (
    "system eval exec open getattr __import__ Popen load ndarray.tofile import_module memmap fromfile lookup "
    "_reconstructor.__globals__ csc_matrix.__init__ _rebuild_tensor"
).split()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=12)


def call(module, name, argument, protocol):
    """A pickle that calls a global with a string."""
    text = argument.encode("utf-8")
    body = b"X" + len(text).to_bytes(4, "little") + text + b"\x85R."
    if protocol == 2:
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + body
    named = b"".join(b"\x8c" + len(part.encode()).to_bytes(1, "little") + part.encode() for part in (module, name))
    return b"\x80\x04" + named + b"\x93" + body


@pytest.mark.parametrize("read", READERS)
@given(module=st.sampled_from(MODULES) | TEXT, name=st.sampled_from(NAMES) | TEXT, protocol=st.sampled_from([2, 4]))
@settings(deadline=None)
@example(module="os", name="system", protocol=2)
@example(module="numpy", name="load", protocol=4)
@example(module="chumpy", name="system", protocol=2)  # all of it is put as a stand-in
@example(module="pandas", name="eval", protocol=4)
def test_no_global_that_a_file_calls_runs_anything(tmp_path_factory, read, module, name, protocol):
    folder = tmp_path_factory.mktemp("pickles")
    path = folder / "bad.pkl"
    path.write_bytes(call(module, name, f"touch {folder}/ran", protocol))
    with pytest.raises(InputError) as caught:
        read(path)
    if module in MODULES and name in NAMES:  # none of these is listed
        refused = f"it names '{module}.{name}', which no "
        assert refused in str(caught.value) and str(caught.value).endswith(" needs; it was refused, nothing was run.")
    assert [file.name for file in folder.iterdir()] == ["bad.pkl"]


@pytest.mark.parametrize("read", READERS)
@given(data=st.data())
@settings(deadline=None)
def test_damaged_bytes_are_one_sentence(tmp_path_factory, read, data):
    path = tmp_path_factory.mktemp("pickles") / "bad.pkl"
    whole = bytearray(pickle.dumps({"a": np.arange(6.0), "b": [1, "x"]}, data.draw(st.integers(0, 5))))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        read(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_as_they_were(tmp_path, protocol):
    sent = {
        "plain": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "scalar": np.float64(0.5),
        "ints": np.arange(3, dtype=np.int16),
    }
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(sent, protocol))
    for read in (read_pickle, read_tensors):
        for key, value in read(path).items():
            np.testing.assert_array_equal(value, sent[key], strict=True)
    assert read_pickle(path).keys() == sent.keys()
    assert read_tensors(path).keys() == sent.keys() - {"scalar"}
