"""optax's own tests of its three functions, from the installed wheel, run on polyak's."""

import importlib.util
import pathlib
import unittest

import optax

from polyak import updates


def test_optaxs_own_update_test_passes_with_polyaks_verbs(monkeypatch):
    called = []

    def counted(verb):
        def call(*arguments, **options):
            called.append(verb.__name__)
            return verb(*arguments, **options)

        return call

    verbs = (updates.apply_updates, updates.incremental_update, updates.periodic_update)
    for verb in verbs:  # before the tests are read: two of them take their function when the class is made
        monkeypatch.setattr(optax._src.update, verb.__name__, counted(verb))
    path = pathlib.Path(optax.__file__).parent / "_src" / "update_test.py"
    spec = importlib.util.spec_from_file_location("optax_update_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= 6
    assert not result.errors
    assert not result.failures
    assert set(called) == {verb.__name__ for verb in verbs}
