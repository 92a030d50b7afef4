"""Characters: sorted code points behind the unknown one."""

import pytest

from lmcli.tokenizers.char import CharTokenizer


def train(*pieces: str, **settings: int) -> CharTokenizer:
    return CharTokenizer.train(pieces, CharTokenizer.Settings(**settings))


def test_ids_follow_the_code_points() -> None:
    char = train("b\na", "é😀a")
    assert [char.symbol(i) for i in range(char.size)] == ["<unk>", "\\n", "a", "b", "é", "😀"]
    assert char.encode("a😀b").tolist() == [2, 5, 3]
    assert (char.size, char.start, char.unknown) == (6, 6, 0)


def test_what_training_has_not_seen_is_unknown() -> None:
    char = train("ab")
    assert char.encode("aΩ\U0010ffff\udc80b").tolist() == [1, 0, 0, 0, 2]
    assert char.decode([1, 0, 2]) == "a\N{REPLACEMENT CHARACTER}b"


def test_rare_characters_are_unknown_from_min_count_on() -> None:
    char = train("aab", "bc", min_count=2)
    assert char.encode("abc").tolist() == [1, 2, 0]


@pytest.mark.parametrize(("min_count", "rare"), [(1, 2), (2, 4), (3, 7), (9, 7)])
def test_the_unknown_rate_counts_what_would_be_unknown_if_left_out(min_count, rare) -> None:
    char = train("aabb", "bcd", min_count=min_count)  # b 3, a 2, c and d 1
    assert char.unknown_rate == pytest.approx((rare + 0.5) / (7 + 1))


def test_counts_are_kept_over_many_small_and_large_pieces() -> None:
    pieces = ["z"] + ["ab"] * 200_000 + ["c" * 600_000] + ["z"]
    assert train(*pieces, min_count=2).decode([1, 2, 3, 4]) == "abcz"


def test_a_long_text_is_encoded_like_a_short_one() -> None:
    char = train("abc")
    assert char.encode("abcb" * 200_000).tolist() == [1, 2, 3, 2] * 200_000


@pytest.mark.parametrize(
    "data",
    [{}, {"characters": 5}, {"characters": "aba"}, {"characters": "a", "unknown_rate": 1.5}],
)
def test_damaged_json_is_refused(data: dict) -> None:
    with pytest.raises((KeyError, ValueError)):
        CharTokenizer.from_json(data)
