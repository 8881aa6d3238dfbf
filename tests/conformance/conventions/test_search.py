"""The search for conventions, by itself."""

from nfspec.conformance.conventions.search import smallest


def test_the_smallest_set_and_no_part_of_it():
    """Two changes are needed, of which one has two fields and one of those is for nothing."""
    moves = [{"a": 1, "b": 1}, {"c": 1}, {"d": 1}, {"d": 2}]

    def excess(fields):
        return 3.0 - 2.0 * (fields.get("a") == 1) - (fields.get("d") == 2)

    assert smallest(excess, moves) == {"a": 1, "d": 2}
    assert smallest(lambda fields: 1.0, moves) is None


def test_each_start_is_combined_with_every_move():
    """Two changes, neither of which is a step in the right direction without the other."""
    moves = [{"a": 1}, {"b": 1}, {"c": 1}, {"d": 1}]

    def excess(fields):
        return 0.0 if fields == {"c": 1, "d": 1} else 1.0 + ("c" in fields) + ("d" in fields)

    assert smallest(excess, moves) is None
    assert smallest(excess, moves, [{}, {"d": 1}]) == {"c": 1, "d": 1}
