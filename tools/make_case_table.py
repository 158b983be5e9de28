#!/usr/bin/env python3
"""Print the table of chat/pytext.c, Unicode lower-case letters: runs of code points with one distance to their lower case."""


def main():
    runs = []
    for c in range(0x110000):
        low = "" if 0xD800 <= c < 0xE000 else chr(c).lower()
        if len(low) != 1 or low == chr(c):
            continue
        delta = ord(low) - c
        if runs:
            first, last, step, d = runs[-1]
            if d == delta and (c - last == step or (first == last and c - last in (1, 2))):
                runs[-1] = (first, c, c - last, d)
                continue
        runs.append((c, c, 1, delta))
    line = "   "
    for run in runs:
        entry = " { 0x%x, 0x%x, %d, %d }," % run
        if len(line) + len(entry) > 120:
            print(line)
            line = "   "
        line += entry
    print(line)


if __name__ == "__main__":
    main()
