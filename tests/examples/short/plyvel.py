"""The engine of examples/ikv-backend-plyvel, without the documents and stores over it."""

from ikvcore._registry import load_backend
from ikvcore.testing import OrderedKeyValueSuite


class TestEngine(OrderedKeyValueSuite):
    """Put in the place of the example's test_conformance.py."""

    info = load_backend("plyvel").info
