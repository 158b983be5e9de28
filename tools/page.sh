#!/bin/sh
# The page of the server as C: page.sh > cli/page.h   (from the repository root)
cat << 'END'
/* page.h - cli/page.html, line by line. Made by tools/page.sh. */
#ifndef PAGE_H
#define PAGE_H

/* clang-format off */
static const char *const page_lines[] = {
END
awk '{
    for (line = $0 "\n"; line != ""; line = substr(line, 61)) { # escaped, 120 columns at most
        piece = substr(line, 1, 60)
        gsub(/[\\"?]/, "\\\\&", piece)
        sub(/\n$/, "\\n", piece)
        print "\"" piece "\","
    }
}' cli/page.html
cat << 'END'
};
/* clang-format on */

#endif /* PAGE_H */
END
