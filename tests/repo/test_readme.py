"""README.md and its Chinese twin: the same commands and numbers, and no file named that is not there."""

import re

import pytest

from tests.paths import ROOT

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_CN.md")}


def code(text):
    return re.findall(r"^(?:    |```).*", text, re.MULTILINE)


def measured(text):
    """The decimal fractions of each row of each table."""
    return [sorted(re.findall(r"\d+\.\d+", row)) for row in re.findall(r"^\|.*", text, re.MULTILINE)]


def test_twins_agree():
    english, chinese = TEXTS.values()
    assert code(english) == code(chinese)
    assert measured(english) == measured(chinese)
    assert len(re.findall("^#+ ", english, re.MULTILINE)) == len(re.findall("^#+ ", chinese, re.MULTILINE))


@pytest.mark.parametrize("name", TEXTS)
def test_named_files_exist(name):
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXTS[name])
    scripts = re.findall(r"(?:python|bash|--config) ([\w/]+\.(?:py|sh|yaml))", TEXTS[name])
    assert len(links) > 3 and len(scripts) > 15
    assert [path for path in links + scripts if not (ROOT / path).exists()] == []
