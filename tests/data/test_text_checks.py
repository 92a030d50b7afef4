"""What makes scores mislead is said: held-out text that repeats, scripts without blanks."""

import random

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.data.text_checks import repeated_share, text_remarks, unspaced_share


def corpus_of(path, text):
    path.write_text(text, encoding="utf-8")
    return load_corpus(CorpusSpec((str(path),)))


def random_lines(count, seed=0):
    draw = random.Random(seed)
    return "".join("".join(draw.choices("abcdefgh ", k=70)) + "\n" for _ in range(count))


def test_a_text_that_is_repeated_is_said_to_be(tmp_path):
    once = random_lines(600)
    corpus = corpus_of(tmp_path / "a.txt", once * 3)
    assert repeated_share(corpus.train, corpus.test) > 0.9
    (remark,) = text_remarks(corpus, "char")
    assert "word for word" in remark
    plain = corpus_of(tmp_path / "b.txt", random_lines(1800))
    assert repeated_share(plain.train, plain.test) == 0
    assert text_remarks(plain, "word") == []


def test_half_a_repetition_has_half_the_share(tmp_path):
    train = corpus_of(tmp_path / "a.txt", random_lines(600)).train
    whole, other = (tmp_path / name for name in ("whole.txt", "other.txt"))
    known = "".join(train.documents)[:14_000]
    corpus = load_corpus(
        CorpusSpec(
            (str(tmp_path / "a.txt"),),
            valid=(_written(other, random_lines(600, 5)),),
            test=(_written(whole, known + random_lines(len(known) // 71, 9)),),
        )
    )
    assert 0.3 < repeated_share(corpus.train, corpus.test) < 0.7


def _written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_script_without_blanks_is_recognised_where_words_are_asked_for(tmp_path):
    chinese = corpus_of(tmp_path / "zh.txt", "我在法国长大，所以我会说法语。他在德国长大。\n" * 60)
    assert unspaced_share(chinese.train) == 1
    assert any("--tokenizer char" in remark for remark in text_remarks(chinese, "word"))
    assert not any("--tokenizer char" in remark for remark in text_remarks(chinese, "char"))
    korean = corpus_of(tmp_path / "ko.txt", "나는 프랑스에서 자랐다 그래서 말한다\n" * 60)
    assert unspaced_share(korean.train) == 0
