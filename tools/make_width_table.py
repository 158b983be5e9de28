"""Prints cli/width.h: which characters take no column of a terminal, and which take two. Unassigned code points between
two of a kind count as that kind.
usage: make_width_table.py > cli/width.h"""
import unicodedata

# Format characters that are drawn: signs that stand over the digits behind them.
DRAWN = {0xAD, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def columns(code):
    char = chr(code)
    category = unicodedata.category(char)
    if category == "Cn":
        return None
    joins = 0x1160 <= code <= 0x11FF or 0xD7B0 <= code <= 0xD7FF  # the vowels and finals of a Korean syllable
    if joins or (category in ("Mn", "Me", "Cf") and code not in DRAWN):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def print_ranges(name, wanted):
    ranges, is_open = [], False
    for code in range(0x300, 0xF0000):
        found = columns(code)
        if found is None:
            continue
        if found == wanted and is_open:
            ranges[-1][1] = code
        elif found == wanted:
            ranges.append([code, code])
        is_open = found == wanted
    cells = ["{ 0x%X, 0x%X }," % (first, last) for first, last in ranges]
    print("static const character_range %s[] = {" % name)
    line = "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 120:
            print(line)
            line = "   "
        line += " " + cell
    print(line + "\n};")


print("""/* width.h - characters that take no column of a terminal, and those that take two: ranges in ascending order. Made by
 * tools/make_width_table.py from Unicode %s. */
#ifndef CLI_WIDTH_H
#define CLI_WIDTH_H

/* clang-format off */
typedef struct {
    unsigned first, last;
} character_range;""" % unicodedata.unidata_version)
print_ranges("no_columns", 0)
print_ranges("two_columns", 2)
print("""/* clang-format on */

#endif /* CLI_WIDTH_H */""")
