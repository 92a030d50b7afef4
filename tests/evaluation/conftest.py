"""What the tests of evaluation share."""

import pytest

from lmcli.registry import TOKENIZERS


@pytest.fixture(scope="session")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it."""

    def make(tokenizer_name, arch="gru"):
        cls = TOKENIZERS.load(tokenizer_name)
        tokenizer = cls.train(iter(france_documents), cls.Settings())
        return build(arch, tokenizer.size), tokenizer

    return make
