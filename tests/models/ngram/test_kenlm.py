"""Our n-gram model against KenLM: its estimator's numbers, and its reader on our numbers."""

import math

import numpy as np
import pytest

from lmcli.models.ngram.kneser_ney import KneserNey

TEXT = """\
the cat sat on the mat
the dog sat on the mat
the cat saw the dog
a dog saw the cat on the mat
a cat sat

the dog saw a cat
the cat sat on a dog
a mat
"""

# lmplz -o 3 --discount_fallback (KenLM 0.3.0): log10 p, n-gram, log10 of the back-off weight
LMPLZ = """\
-1.3405385	<unk>	0
0	<s>	-0.15404113
-0.70371646	</s>	0
-0.9551876	the	-0.081755154
-1.049974	cat	-0.24377896
-1.049974	sat	-0.12934785
-1.049974	on	-0.12934785
-1.049974	mat	-0.018912759
-1.049974	dog	-0.081755154
-1.049974	saw	-0.12934785
-0.9551876	a	-0.081755154
-0.66727495	<s> </s>	0
-0.60145104	cat </s>	0
-0.4247688	sat </s>	0
-0.634494	mat </s>	0
-0.7424981	dog </s>	0
-0.5229006	<s> the	-0.1788141
-0.95576864	on the	0
-0.95576864	saw the	-0.12493875
-1.0415225	the cat	-0.34378198
-1.0415225	a cat	-0.12493875
-1.1681921	cat sat	-0.45079234
-0.6750256	dog sat	-0.12493875
-0.7250462	cat on	-0.12493875
-1.0241929	sat on	-0.45079234
-0.6750256	the mat	0
-0.6750256	a mat	-0.12493875
-1.0415225	the dog	-0.12493875
-1.0415225	a dog	-0.12493875
-0.7250462	cat saw	-0.12493875
-1.0415225	dog saw	-0.12493875
-1.1092287	<s> a	-0.12493875
-0.50657135	on a	-0.12493875
-0.50657135	saw a	-0.12493875
-0.50478446	a cat </s>
-0.66451544	cat sat </s>
-0.634494	the mat </s>
-0.37262675	a mat </s>
-0.6595001	the dog </s>
-0.58386767	a dog </s>
-0.4775023	cat on the
-0.22061004	sat on the
-0.4775023	cat saw the
-0.681851	dog saw the
-1.2203367	<s> the cat
-0.7140796	saw the cat
-0.8196024	<s> a cat
-0.49735248	saw a cat
-0.3442492	the cat sat
-0.75469035	a cat sat
-0.61647964	the dog sat
-0.830197	the cat on
-0.22475542	cat sat on
-0.4935812	dog sat on
-0.6750256	on the mat
-0.61647964	<s> a mat
-0.4004343	<s> the dog
-0.7140796	saw the dog
-0.8196024	<s> a dog
-0.49735248	on a dog
-0.830197	the cat saw
-0.8196024	the dog saw
-0.7140796	a dog saw
-0.7129852	sat on a
-0.44537857	dog saw a
"""


def vocabulary_of(text):
    """Ids of all words, then of the line end, the unknown word and the line start."""
    words = sorted(set(text.split()))
    return {word: i for i, word in enumerate([*words, "</s>", "<unk>", "<s>"])}


def stream_of(text, ids):
    """Lines as documents, each ending in the token </s>."""
    lines = [["<s>", *line.split(), "</s>"] for line in text.splitlines()]
    return np.array([ids.get(word, ids["<unk>"]) for line in lines for word in line])


def estimate(text, order):
    ids = vocabulary_of(text)
    return KneserNey.estimate(stream_of(text, ids), len(ids) - 1, order), ids


def grams_of(model, ids):
    """Every n-gram as words: its probability and, below the highest order, its back-off weight."""
    words, below, orders = list(ids), [()], []
    for level in model.levels:
        context = np.repeat(np.arange(len(level.children)), level.children)
        below = [(*below[c], words[t]) for c, t in zip(context, level.token, strict=True)]
        weights = level.backoff if len(level.backoff) else np.ones(len(below))
        rows = zip(below, level.probability, weights, strict=True)
        orders.append({gram: (p, weight) for gram, p, weight in rows})
    return orders


def write_arpa(model, ids, path):
    orders = grams_of(model, ids)
    lines = ["\\data\\", *(f"ngram {k}={len(grams)}" for k, grams in enumerate(orders, 1))]
    for k, grams in enumerate(orders, 1):
        lines += ["", f"\\{k}-grams:"]
        for gram, (p, weight) in grams.items():
            row = f"{math.log10(p) if p else 0:.9f}\t{' '.join(gram)}"
            lines.append(row if k == len(orders) else f"{row}\t{math.log10(weight):.9f}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def test_every_number_is_the_one_that_lmplz_gives():
    model, ids = estimate(TEXT, 3)
    ours = {gram: row for grams in grams_of(model, ids) for gram, row in grams.items()}
    theirs = [line.split("\t") for line in LMPLZ.splitlines()]
    assert len(theirs) == len(ours) == model.size + 1
    for log_p, words, *weight in theirs:
        p, ours_weight = ours[tuple(words.split())]
        if words != "<s>":
            assert math.log10(p) == pytest.approx(float(log_p), abs=2e-6), words
        assert math.log10(ours_weight) == pytest.approx(float((weight or [0])[0]), abs=2e-6), words


def sentences(count, seed):
    """Lines of made-up words in which each leans on the one before."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        word, line = int(rng.integers(0, 60)), []
        for _ in range(int(rng.integers(0, 12))):
            word = (3 * word + int(rng.integers(0, 4))) % 60 if rng.random() < 0.8 else word // 2
            line.append(f"w{word}")
        yield " ".join(line)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3, 5])
def test_kenlm_reads_the_same_scores_from_our_table(order, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    train = "\n".join(sentences(800, 0))
    model, ids = estimate(train, order)
    write_arpa(model, ids, tmp_path / "table.arpa")
    config = kenlm.Config()
    config.show_progress = False
    theirs = kenlm.Model(str(tmp_path / "table.arpa"), config)
    for line in [*sentences(200, 1), "w1 never w2 w3 seen", ""]:
        read = stream_of(line or "\n", ids)
        nats = model.log_probabilities(read[None, :-1], read[None, 1:])[0]
        expected = [score for score, _, _ in theirs.full_scores(line)]
        assert nats / math.log(10) == pytest.approx(expected, abs=2e-5), line
