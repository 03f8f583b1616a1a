from cliff_ms.io.tables import markdown_table


def test_markdown_comes_line_by_line():
    taken = []

    def rows():
        for name, value in (("a", 1.005), ("b", "-")):
            taken.append(name)
            yield {"": name, "MPJPE (mm)": value, "box": [1.2, 3.9]}

    lines = markdown_table(rows())
    assert [next(lines) for _ in range(3)] == ["|  | MPJPE (mm) | box |", "| --- | --- | --- |", "| a | 1.00 | 1 4 |"]
    assert taken == ["a"]
    assert list(lines) == ["| b | - | 1 4 |"]
