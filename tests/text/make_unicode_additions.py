#!/usr/bin/env python3
"""Writes worker/text/unicode_additions.h: what HF tokenizers' Unicode tables have and Debian 12's PCRE2 has not.

HF's regular expressions follow Unicode 16, PCRE2 10.42 follows Unicode 14. The difference is a few characters that
were assigned in between; the pre-tokenizer adds them to the classes it uses, so that both cut a text in the same
places. Run it when either side changes:

    gcc -O2 -o /tmp/classify tests/text/classify.c -lpcre2-8
    python3 tests/text/make_unicode_additions.py /tmp/classify > worker/text/unicode_additions.h
"""

import subprocess
import sys

from tokenizers import Regex, __version__, pre_tokenizers

CLASSES = ["L", "M", "N", "P", "S"]


def members_for_hf(pattern):
    """The code points that match, by asking HF to remove them one at a time."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {u for u in range(0x110000) if not 0xD800 <= u < 0xE000 and not split.pre_tokenize_str(chr(u))}


def members_for_pcre(program, pattern):
    line = subprocess.run([program, pattern], check=True, capture_output=True, text=True).stdout.strip()
    return {u for u, c in enumerate(line) if c == "1"}


def ranges(points):
    out = []
    for u in sorted(points):
        if out and out[-1][1] == u - 1:
            out[-1][1] = u
        else:
            out.append([u, u])
    return out


def main():
    program = sys.argv[1]
    print("// Written by tests/text/make_unicode_additions.py; do not edit.")
    print(f"// Characters that HF tokenizers {__version__} counts into a Unicode category and PCRE2 10.42 does not,")
    print("// as ranges for a character class.")
    print("#pragma once\n\nnamespace dsm::text {\n\n// clang-format off")
    for name in CLASSES:
        pattern = f"\\p{{{name}}}"
        hf, pcre = members_for_hf(pattern), members_for_pcre(program, pattern)
        if pcre - hf:
            sys.exit(f"{pattern}: PCRE2 has {len(pcre - hf)} characters that HF has not; adding cannot mend this")
        items = [
            f"\\\\x{{{a:X}}}" if a == b else f"\\\\x{{{a:X}}}-\\\\x{{{b:X}}}" for a, b in ranges(hf - pcre)
        ]
        print(f"inline constexpr char kAdded{name}[] =  // {len(hf)} characters in all")
        for i in range(0, len(items), 5):
            end = ";" if i + 5 >= len(items) else ""
            print(f'    "{"".join(items[i : i + 5])}"{end}')
        if not items:
            print('    "";')
    print("// clang-format on\n\n}  // namespace dsm::text")


if __name__ == "__main__":
    main()
