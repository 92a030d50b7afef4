"""A learning curve in lines: every point at its height and its share of the budget."""

from lmcli.report.learning_curve import HEIGHT, learning_curve


def test_there_is_none_before_the_first_validation():
    assert learning_curve([(0.1, 3.0)], [], 80) == []


def test_the_first_is_at_the_top_left_and_the_best_at_the_bottom_right():
    lines = learning_curve([(0.0, 4.0)], [(0.5, 3.0), (1.0, 2.0)], 80)
    assert len(lines) == HEIGHT + 1
    assert lines[0].startswith("4.00 │·")
    assert lines[HEIGHT - 1].startswith("2.00 │")
    assert lines[HEIGHT - 1].endswith("●")
    middle = [line.index("●") for line in lines[1 : HEIGHT - 1] if "●" in line]
    assert middle == [len("4.00 │") + 30]


def test_it_is_no_wider_than_it_may_be_and_a_flat_one_is_drawn():
    for width in (30, 45, 80, 200):
        lines = learning_curve([(i / 50, 2.0) for i in range(50)], [(1.0, 2.0)], width, True)
        assert max(map(len, lines)) <= width
        assert "o" in lines[0]
        assert "".join(lines).isascii()
