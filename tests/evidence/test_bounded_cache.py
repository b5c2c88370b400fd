"""What is used again is kept within the bound, and what was used longest ago goes first."""

from polymorph.evidence.bounded_cache import BoundedCache


def test_a_value_is_made_once_while_it_is_kept() -> None:
    cache: BoundedCache[str, str] = BoundedCache(2)
    made: list[str] = []

    def value(key: str) -> str:
        return cache.once(key, lambda: made.append(key) or key, lambda _: 1)

    for key in ("a", "b", "a", "c", "a", "b"):
        assert value(key) == key
    assert made == ["a", "b", "c", "b"]  # b was used longest ago when c came
    assert cache.nbytes == 2


def test_what_is_larger_than_the_bound_is_not_kept_and_displaces_nothing() -> None:
    cache: BoundedCache[str, int] = BoundedCache(10)
    assert cache.once("small", lambda: 1, lambda _: 10) == 1
    assert cache.once("large", lambda: 2, lambda _: 11) == 2
    assert cache.nbytes == 10
    assert cache.once("small", lambda: 3, lambda _: 10) == 1
