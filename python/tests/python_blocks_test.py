"""Runs the Python blocks of docs/*.md as they stand, each document's in order, as one program in the folder
that the documents' commands run in.

    python_blocks_test.py PROGRAM SOURCE_FOLDER
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv[2]).absolute()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def program(document: pathlib.Path) -> str:
    """Its blocks; every line where the document has it, so that a traceback names that."""
    text = document.read_text()
    lines = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(1))
        for i, line in enumerate(match[1].splitlines()):
            lines[first + i] = line
    return "\n".join(lines)


def run(text: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True,
                          timeout=300)


class Blocks(unittest.TestCase):
    def test_documents(self) -> None:
        sys.path.insert(0, str(SOURCE / "apps/qnpu"))
        import docs_test  # type: ignore[import-not-found]

        documents = [d for d in sorted((SOURCE / "docs").rglob("*.md")) if program(d).strip()]
        self.assertIn("python.md", [d.name for d in documents])
        for document in documents:
            with tempfile.TemporaryDirectory() as folder:
                docs_test.make_folder(pathlib.Path(folder))
                result = run(program(document), pathlib.Path(folder))
                self.assertEqual(result.returncode, 0, f"{document}\n{result.stderr}")
                self.assertTrue(result.stdout)

    def test_a_failing_block_fails(self) -> None:
        document = pathlib.Path(tempfile.mkdtemp()) / "a.md"
        document.write_text("```python\nx = 1\n```\ntext\n```python\nassert x == 2\n```\n")
        result = run(program(document), document.parent)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("line 6", result.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
