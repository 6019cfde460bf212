"""Runs the `sh` blocks of README.md and docs/ as they stand, each document's in order in a folder of
its own. What the blocks name is a tiny model there: my-checkpoint, my-model, my-text.txt, other-text.txt,
my-questions.jsonl. A comment in the line before a block says what is different about it:

    <!-- not run: needs a phone -->      it is not run, and why
    <!-- in the background: 8080 -->     it goes on while the next ones run, once this port answers

    docs_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv[1]).absolute()
SOURCE = pathlib.Path(sys.argv[2]).absolute()
DOCUMENTS = [SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```sh\n(?P<text>.*?)^```$", re.M | re.S)
QUESTION = {"query": "The river", "choices": ["runs through the town", "is"], "gold": 0}
SECONDS = 400  # for one document
BACKGROUND = """if (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; then
  echo 'another program has port {port}' >&2; exit 1
fi
{{ {text}}} &
for try in $(seq 300); do
  (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break
  [[ $try != 300 ]] || {{ echo 'nothing answers on port {port}' >&2; exit 1; }}
  sleep 0.1
done"""


@dataclasses.dataclass
class Block:
    line: int
    text: str
    mark: str

    @property
    def runs(self):
        return not self.mark.startswith("not run: ")

    def script(self):
        """Bash that runs it in the same shell as the blocks before."""
        heading = f"printf '\\n@@ line {self.line}\\n'\n"
        if self.mark.startswith("in the background: "):
            port = int(self.mark.split(": ")[1])
            return f"{heading}{BACKGROUND.format(port=port, text=self.text)}\n"
        return heading + self.text


def blocks_of(text):
    return [Block(text.count("\n", 0, m.start("text")), m["text"], m["mark"] or "")
            for m in FENCE.finditer(text)]


def make_folder(folder):
    """A checkpoint with room for every length that the documents name, its artifact, and texts."""
    shutil.copytree(SOURCE / "testdata/models/tiny-llama", folder / "my-checkpoint")
    config = folder / "my-checkpoint/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 8192}))
    prose = (SOURCE / "testdata/goldens/prose.txt").read_text()
    (folder / "my-text.txt").write_text(prose * 12)
    (folder / "other-text.txt").write_text(prose[1000:] * 12)
    (folder / "my-questions.jsonl").write_text((json.dumps(QUESTION) + "\n") * 3)
    subprocess.run([PROGRAM, "quantize", "--model", "my-checkpoint", "--recipe", "fast", "--calib",
                    "my-text.txt", "--out", "my-model"], cwd=folder, check=True, capture_output=True)


def run_blocks(blocks, folder):
    """(exit code, what was printed). What still runs at the end is ended."""
    script = "set -euo pipefail\n" + "".join(b.script() for b in blocks if b.runs)
    path = f"{PROGRAM.parent}:{SOURCE / '.venv/bin'}:{os.environ['PATH']}"
    with tempfile.TemporaryFile("w+") as output:
        shell = subprocess.Popen(["bash", "-c", script], cwd=folder, stdout=output, stderr=output,
                                 stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path, "HOME": str(folder)},
                                 start_new_session=True)
        try:
            code = shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = f"none in {SECONDS} s"
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        shell.wait()
        output.seek(0)
        return code, output.read()


class Docs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name) / "template"
        cls.folder.mkdir()
        make_folder(cls.folder)
        cls.addClassCleanup(cls.count)

    @staticmethod
    def count():
        blocks = [(d, b) for d in DOCUMENTS for b in blocks_of(d.read_text())]
        left_out = [(d, b) for d, b in blocks if not b.runs]
        print(f"{len(blocks)} blocks: {len(blocks) - len(left_out)} run, {len(left_out)} not:")
        for document, block in left_out:
            print(f"  {document.name}, line {block.line}: {block.mark.split(': ', 1)[1]}")

    def check(self, document):
        blocks = blocks_of(document.read_text())
        if not any(b.runs for b in blocks):
            self.skipTest("no block to run")
        folder = self.folder.parent / document.stem
        shutil.copytree(self.folder, folder)
        code, output = run_blocks(blocks, folder)
        last = output.rfind("\n@@ line ")
        where = output[last:].split("\n")[1][3:] if last >= 0 else "no block"
        self.assertEqual(code, 0, f"{document.name}, {where}:\n{output[last + 1:][-3000:]}")


for _document in DOCUMENTS:
    setattr(Docs, "test_" + _document.stem, lambda self, d=_document: self.check(d))


class Form(unittest.TestCase):
    def test_every_command_line_is_in_a_block_or_shows_its_arguments(self):
        """Outside of blocks are usage lines alone, with placeholders in capitals."""
        for document in DOCUMENTS:
            for number, line in enumerate(document.read_text().splitlines(), 1):
                if re.match(r"    qnpu ", line):
                    self.assertRegex(line, r"\b[A-Z]{2,}|  [a-z]", f"{document.name}, line {number}")

    def test_marks_are_known(self):
        for document in DOCUMENTS:
            text = document.read_text()
            for block in blocks_of(text):
                self.assertRegex(block.mark, r"^$|^not run: \w|^in the background: \d+$")
            fences = re.findall(r"^```(?:sh|bash|shell|console)\b", text, re.M)
            self.assertEqual(len(fences), len(blocks_of(text)), document.name)


class Itself(unittest.TestCase):
    """A check that cannot fail is none."""

    def outcome(self, text):
        with tempfile.TemporaryDirectory() as folder:
            return run_blocks(blocks_of(text), folder)

    def test_a_failing_block_fails(self):
        code, output = self.outcome("```sh\ntrue\n```\ntext\n```sh\nqnpu evel\necho after\n```\n")
        self.assertEqual(code, 1)
        self.assertIn("@@ line 5\n", output)
        self.assertIn("did you mean 'eval'", output)
        self.assertNotIn("after", output)

    def test_a_failure_within_a_pipe_fails(self):
        self.assertNotEqual(self.outcome("```sh\nqnpu evel | cat\n```\n")[0], 0)

    def test_a_marked_block_is_left_out(self):
        code, output = self.outcome("<!-- not run: is wrong -->\n```sh\nexit 3\n```\n")
        self.assertEqual((code, output), (0, ""))

    def test_a_background_block_goes_on(self):
        server = "```sh\npython3 -m http.server --bind 127.0.0.1 18765\n```\n"
        ask = "```sh\npython3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:18765\")'\n```\n"
        self.assertEqual(self.outcome(f"<!-- in the background: 18765 -->\n{server}{ask}")[0], 0)
        self.assertNotEqual(self.outcome(ask)[0], 0)  # it has ended with its document


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
