#!/usr/bin/env python3
"""Write rust/src/sys.rs: what gemma4.h declares, in Rust.

    python3 tools/make_rust_mirror.py            print the mirror
    python3 tools/make_rust_mirror.py --proof    print rust/tests/mirror.rs, which checks it

The header is read by tools/interface.py, so nobody copies a field by hand. The test compares sizes, offsets and values
with those that a C compiler has found: what the program of `tools/interface.py` prints, in a file that $G4_PROOF names.
"""

import sys

from interface import Interface

PLAIN = {
    "int": "c_int",
    "char": "c_char",
    "unsigned char": "c_uchar",
    "float": "f32",
    "double": "f64",
    "size_t": "usize",
    "uint8_t": "u8",
    "int32_t": "i32",
    "uint32_t": "u32",
    "int64_t": "i64",
    "uint64_t": "u64",
    "g4_token": "g4_token",
    "void": "c_void",
}
KEYWORDS = {"in", "type", "fn", "use", "ref", "match", "move", "box", "final"}


def rust_name(name):
    return f"r#{name}" if name in KEYWORDS else name


class Writer:
    def __init__(self, api):
        self.api = api

    def type_of(self, d):
        """The Rust type of a declarator: what it points to is const or mut as the header has it."""
        base = "c_int" if d.base in self.api.enums else PLAIN.get(d.base, d.base)
        if d.base in self.api.calls:
            return f"Option<{base}>"
        for i in range(d.stars):
            base = f"*{'const' if d.is_const[i] else 'mut'} {base}"
        return f"[{base}; {d.length}]" if d.length else base

    def signature(self, returns, parameters):
        given = ", ".join(f"{rust_name(p.name)}: {self.type_of(p)}" for p in parameters)
        base = self.type_of(returns)
        return f"({given})" + ("" if base == "c_void" else f" -> {base}")

    def mirror(self):
        api = self.api
        out = [
            "//! gemma4.h in Rust. Made by tools/make_rust_mirror.py from the header: do not edit.",
            "#![allow(non_camel_case_types, missing_docs)]",
            "",
            "use std::os::raw::{c_char, c_int, c_uchar, c_void};",
            "",
            "pub type g4_token = i32;",
        ]
        for name, items in api.enums.items():
            out += ["", f"pub type {name} = c_int;"]
            out += [f"pub const {item}: {name} = {value};" for item, value in items]
        for name in api.opaque:
            out += ["", "#[repr(C)]", f"pub struct {name} {{", "    _private: [u8; 0],", "}"]
        for name in api.order:
            if name in api.calls:
                out += ["", f"pub type {name} = unsafe extern \"C\" fn{self.signature(*api.calls[name])};"]
                continue
            out += ["", "#[repr(C)]", "#[derive(Clone, Copy)]", f"pub struct {name} {{"]
            for f in api.structs[name]:
                if f.parameters is None:
                    out.append(f"    pub {rust_name(f.name)}: {self.type_of(f)},")
                else:
                    kind = f'unsafe extern "C" fn{self.signature(f, f.parameters)}'
                    out.append(f"    pub {rust_name(f.name)}: Option<{kind}>,")
            out.append("}")
        out += ["", 'extern "C" {']
        for name, (returns, parameters) in api.functions.items():
            out.append(f"    pub fn {name}{self.signature(returns, parameters)};")
        return "\n".join(out + ["}"]) + "\n"

    def proof(self):
        api = self.api
        out = [PROOF]
        for name in api.structs:
            fields = ", ".join(rust_name(f.name) for f in api.structs[name])
            out.append(f"    of_struct!(found, {name} {{ {fields} }});")
        for items in api.enums.values():
            out += [f'    found.insert("value {item}".into(), vec![sys::{item} as i64]);' for item, _ in items]
        return "\n".join(out + ["    found", "}"]) + "\n"


PROOF = '''//! Is src/sys.rs what a C compiler makes of gemma4.h? Made by tools/make_rust_mirror.py: do not edit.
#![allow(clippy::useless_vec)]
use std::collections::BTreeMap;
use std::mem::{size_of, MaybeUninit};

use gemma4c::sys;

macro_rules! of_struct {
    ($found:ident, $name:ident { $($field:ident),* }) => {{
        $found.insert(concat!("struct ", stringify!($name)).into(), vec![size_of::<sys::$name>() as i64]);
        let room = MaybeUninit::<sys::$name>::zeroed();
        // SAFETY: all zeros are a value of every struct of the interface.
        let it = unsafe { room.assume_init_ref() };
        $(
            let name = concat!("field ", stringify!($name), ".", stringify!($field)).replace("r#", "");
            let offset = std::ptr::addr_of!(it.$field) as usize - it as *const _ as usize;
            $found.insert(name, vec![offset as i64, std::mem::size_of_val(&it.$field) as i64]);
        )*
    }};
}

#[test]
fn is_what_a_c_compiler_makes_of_it() {
    let proof = match std::env::var("G4_PROOF") {
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => return println!("skipped: G4_PROOF names no file"),
    };
    let mut expected = BTreeMap::new();
    for line in proof.lines().filter(|line| !line.starts_with("function ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let numbers: Vec<i64> = words[2..].iter().map(|n| n.parse().unwrap()).collect();
        expected.insert(words[..2].join(" "), numbers);
    }
    assert!(expected.len() > 400, "{}", expected.len());
    assert_eq!(found(), expected);
}

#[rustfmt::skip]
fn found() -> BTreeMap<String, Vec<i64>> {
    let mut found = BTreeMap::new();'''


def main():
    writer = Writer(Interface())
    sys.stdout.write(writer.proof() if "--proof" in sys.argv[1:] else writer.mirror())


if __name__ == "__main__":
    main()
