"""Prints chat/unicode.h: the general categories, scripts and binary properties of Unicode that \\p{...} in a pattern may
name. Needs the package regex, whose tables are of a newer Unicode than those of Python's own unicodedata.
usage: make_unicode_table.py > chat/unicode.h"""
import regex

CATEGORIES = """Lu Uppercase_Letter,Ll Lowercase_Letter,Lt Titlecase_Letter,Lm Modifier_Letter,Lo Other_Letter,
Mn Nonspacing_Mark,Mc Spacing_Mark,Me Enclosing_Mark,Nd Decimal_Number,Nl Letter_Number,No Other_Number,
Pc Connector_Punctuation,Pd Dash_Punctuation,Ps Open_Punctuation,Pe Close_Punctuation,Pi Initial_Punctuation,
Pf Final_Punctuation,Po Other_Punctuation,Sm Math_Symbol,Sc Currency_Symbol,Sk Modifier_Symbol,So Other_Symbol,
Zs Space_Separator,Zl Line_Separator,Zp Paragraph_Separator,Cc Control,Cf Format,Co Private_Use,Cn Unassigned"""
SCRIPTS = """Zyyy Common,Zinh Inherited,Latn Latin,Grek Greek,Cyrl Cyrillic,Armn Armenian,Hebr Hebrew,Arab Arabic,
Syrc Syriac,Thaa Thaana,Deva Devanagari,Beng Bengali,Guru Gurmukhi,Gujr Gujarati,Orya Oriya,Taml Tamil,Telu Telugu,
Knda Kannada,Mlym Malayalam,Sinh Sinhala,Thai Thai,Laoo Lao,Tibt Tibetan,Mymr Myanmar,Geor Georgian,Hang Hangul,
Ethi Ethiopic,Cher Cherokee,Khmr Khmer,Mong Mongolian,Hira Hiragana,Kana Katakana,Bopo Bopomofo,Hani Han,Yiii Yi,
Brai Braille,Copt Coptic,Goth Gothic,Runr Runic,Ogam Ogham,Tfng Tifinagh,Nkoo Nko,Java Javanese,Bali Balinese,
Cans Canadian_Aboriginal,Tglg Tagalog,Vaii Vai,Xsux Cuneiform,Egyp Egyptian_Hieroglyphs,Linb Linear_B"""
PROPERTIES = """Alpha Alphabetic,Upper Uppercase,Lower Lowercase,space White_Space,IDS ID_Start,IDC ID_Continue,
XIDS XID_Start,XIDC XID_Continue,AHex ASCII_Hex_Digit,Hex Hex_Digit,Ideo Ideographic,Dash Dash,Dia Diacritic,Math Math,
QMark Quotation_Mark,VS Variation_Selector,Emoji Emoji,EPres Emoji_Presentation,EMod Emoji_Modifier,
EBase Emoji_Modifier_Base,EComp Emoji_Component,ExtPict Extended_Pictographic,Cased Cased,Ext Extender"""
EVERYTHING = "".join(chr(c) for c in range(0x110000))


def digit(value):
    return {92: "h", 63: "i"}.get(40 + value, chr(40 + value))  # neither a backslash nor a question mark


def number(value):
    out = ""
    while value >= 32:
        out += digit(32 + value % 32)
        value //= 32
    return out + digit(value)


def table(name):
    out, end = "", 0
    for m in regex.finditer(r"\p{%s}+" % name, EVERYTHING):
        out += number(m.start() - end) + number(m.end() - m.start() - 1)
        end = m.end()
    return out


def entries(listed, prefix):
    for entry in listed.replace("\n", "").split(","):
        short, name = entry.split()
        text = table(prefix + name)
        lines = ['"%s"' % text[i:i + 110] for i in range(0, len(text), 110)]
        print('    { "%s", "%s",\n      %s },' % (short, name, "\n      ".join(lines)))


print("""/* unicode.h - which characters are in which general category, script and binary property. Made by
 * tools/make_unicode_table.py: ranges in ascending order, each as two numbers: how many code points lie between it and
 * the one before, and how many it has beyond one. A number is written in digits of 5 bits, the lowest first, each but
 * its last with 32 added; digit v is the character 40 + v, but h for the backslash and i for the question mark. */
#ifndef GEMMA4_UNICODE_H
#define GEMMA4_UNICODE_H

/* clang-format off */
typedef struct {
    const char *alias, *name, *ranges;
} g4_property;""")
for title, listed, prefix in (("categories", CATEGORIES, "gc="), ("scripts", SCRIPTS, "Script="),
                              ("properties", PROPERTIES, "")):
    print("static const g4_property g4_unicode_%s[] = {" % title)
    entries(listed, prefix)
    print("};")
print("/* clang-format on */\n\n#endif /* GEMMA4_UNICODE_H */")
