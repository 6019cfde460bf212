"""What the tests of the program share. Each is called with the program and the folder of the sources:

    NAME_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]    PROGRAM: qnpu, with qnpu-learn beside it
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
MODEL = SOURCE / "testdata/models/tiny-llama"
TEXT = SOURCE / "testdata/goldens/prose.txt"


def run(*arguments, program=PROGRAM, **options):
    command = [str(program)] + [str(a) for a in arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def quantize(out, *arguments, model=MODEL, recipe="w8a8kv8", calib=TEXT, **options):
    """With little of a text: quick, and enough for a tiny model."""
    return run("quantize", "--model", model, "--recipe", recipe, "--calib", calib, "--out", out,
               "--samples", 4, "--length", 64, *arguments, **options)


class FolderCase(unittest.TestCase):
    """Tests with a folder of their own, which goes when they end."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def json(self, *arguments):
        """What a command says with --json."""
        result = run(*arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
