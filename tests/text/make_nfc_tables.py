#!/usr/bin/env python3
"""Writes worker/text/nfc_tables.h: what composing Unicode text (NFC) needs, as HF tokenizers' tables have it.

    .local/venv/bin/python tests/text/make_nfc_tables.py > worker/text/nfc_tables.h

Decompositions and compositions are asked of HF's normalizers themselves, and so is whether a mark is moved at all: their
tables are older than Python's, from which the combining classes of those that are moved come. Hangul is computed, so it
is not in here.
"""

import unicodedata

from tokenizers import __version__, normalizers

NFC, NFD = normalizers.NFC(), normalizers.NFD()
HANGUL = range(0xAC00, 0xD7A4)


def points():
    return (u for u in range(0x110000) if not 0xD800 <= u < 0xE000 and u not in HANGUL)


def is_moved(u):
    """Whether HF has a combining class for it: then it changes places with a mark of a higher or of a lower one."""
    higher, lower = "\u0345" + chr(u), chr(u) + "\u0334"
    return NFD.normalize_str(higher) != higher or NFD.normalize_str(lower) != lower


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("    " + ", ".join(items[i : i + per_line]) + ",")


def main():
    whole = {u: [ord(c) for c in NFD.normalize_str(chr(u))] for u in points()}
    whole = {u: d for u, d in whole.items() if d != [u]}
    # One step at a time: a pair, the first of which may come apart again.
    pairs = {}
    for u, parts in whole.items():
        if len(parts) == 1:
            continue
        first = NFC.normalize_str("".join(map(chr, parts[:-1])))
        composed = NFC.normalize_str(first + chr(parts[-1]))
        if len(first) == 1 and composed == chr(u):
            pairs[(ord(first), parts[-1])] = u
    flat, starts = [], []
    for u, parts in sorted(whole.items()):
        starts.append((u, len(flat), len(parts)))
        flat += parts
    classes = []
    for u in points():
        c = unicodedata.combining(chr(u))
        if not c or not is_moved(u):
            continue
        if classes and classes[-1][1] == u - 1 and classes[-1][2] == c:
            classes[-1][1] = u
        else:
            classes.append([u, u, c])
    print("// Written by tests/text/make_nfc_tables.py; do not edit.")
    print(f"// From HF tokenizers {__version__} and Unicode {unicodedata.unidata_version}; each table is sorted.")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace dsm::text {\n\n// clang-format off")
    print("struct NfcDecomposition { std::uint32_t point; std::uint16_t begin; std::uint16_t size; };")
    print("inline constexpr std::uint32_t kNfcParts[] = {")
    rows([hex(p) for p in flat], 12)
    print("};\ninline constexpr NfcDecomposition kNfcDecompositions[] = {  // whole ones, into kNfcParts")
    rows([f"{{{u:#x}, {b}, {n}}}" for u, b, n in starts], 6)
    print("};\nstruct NfcPair { std::uint32_t first; std::uint32_t second; std::uint32_t composed; };")
    print("inline constexpr NfcPair kNfcPairs[] = {")
    rows([f"{{{a:#x}, {b:#x}, {u:#x}}}" for (a, b), u in sorted(pairs.items())], 5)
    print("};\nstruct NfcClass { std::uint32_t first; std::uint32_t last; std::uint8_t value; };")
    print("inline constexpr NfcClass kNfcClasses[] = {  // canonical combining classes but 0")
    rows([f"{{{a:#x}, {b:#x}, {c}}}" for a, b, c in classes], 6)
    print("};\n// clang-format on\n\n}  // namespace dsm::text")


if __name__ == "__main__":
    main()
