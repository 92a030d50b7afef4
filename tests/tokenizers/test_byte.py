"""Bytes: the id is the byte."""

from lmcli.tokenizers.byte import ByteTokenizer

BYTE = ByteTokenizer.train([], ByteTokenizer.Settings())


def test_ids_are_the_utf8_bytes() -> None:
    assert BYTE.encode("aé\n").tolist() == [0x61, 0xC3, 0xA9, 0x0A]
    assert (BYTE.size, BYTE.start, BYTE.unknown) == (256, 256, None)


def test_a_character_ends_with_its_last_byte() -> None:
    assert BYTE.encode_with_ends("aé€b").ends.tolist() == [1, 1, 2, 2, 2, 3, 4]


def test_a_character_appears_when_it_is_complete() -> None:
    decoder = BYTE.decoder()
    assert [decoder.push(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert BYTE.decode([0xFF, 0x61, 0xC3]) == "\N{REPLACEMENT CHARACTER}a\N{REPLACEMENT CHARACTER}"


def test_symbols_are_printable() -> None:
    assert [BYTE.symbol(byte) for byte in (0x61, 0x20, 0x0A, 0xC3)] == ["a", " ", "\\n", "\\xc3"]
    assert all(BYTE.symbol(byte).isprintable() for byte in range(256))


def test_a_lone_surrogate_is_no_crash() -> None:
    encoded = BYTE.encode_with_ends("a\udc80b")
    assert BYTE.decode(encoded.ids) == "a?b"
    assert encoded.ends.tolist() == [1, 2, 3]
