//! Compiles the engine, one C file, with the system's C compiler: $CC, or cc, and $CFLAGS. $AR, or ar, makes a library of it.
//!
//! The file is gemma4_single.h: beside this one in a packaged crate, else written from the sources one folder up.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> Vec<u8> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{:?} cannot be started: {}", command, error),
    };
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed:\n{}", command, words);
    output.stdout
}

/// The value of NAME_TARGET, as Cargo users set it for cross compilers, of NAME, or what is usual.
fn tool(name: &str, usual: &str) -> String {
    let target = env::var("TARGET").unwrap_or_default().replace('-', "_");
    let own = format!("{}_{}", name, target);
    println!("cargo:rerun-if-env-changed={}", name);
    println!("cargo:rerun-if-env-changed={}", own);
    env::var(own).or_else(|_| env::var(name)).unwrap_or_else(|_| usual.to_string())
}

/// The library as one header: a copy of the packaged one, or written from the checkout.
fn write_header(folder: &Path, out: &Path) {
    let packaged = folder.join("gemma4_single.h");
    if packaged.exists() {
        println!("cargo:rerun-if-changed={}", packaged.display());
        fs::copy(&packaged, out).expect("gemma4_single.h can be copied");
        return;
    }
    let root = folder.join("..");
    for name in ["gemma4.h", "gemma4.c", "tokenizer.c", "engine", "media", "chat", "tools/single.sh"] {
        println!("cargo:rerun-if-changed={}", root.join(name).display());
    }
    let text = run(Command::new("sh").arg("tools/single.sh").current_dir(&root));
    fs::write(out, text).expect("gemma4_single.h can be written");
}

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo names the crate's folder"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo names a folder for output"));
    write_header(&folder, &out.join("gemma4_single.h"));
    let source = out.join("gemma4c.c");
    fs::write(&source, "#define GEMMA4_IMPLEMENTATION\n#include \"gemma4_single.h\"\n")
        .expect("gemma4c.c can be written");

    let (object, library) = (out.join("gemma4c.o"), out.join("libgemma4c.a"));
    // The kernels are what takes the time, in debug builds of Rust too.
    run(Command::new(tool("CC", "cc"))
        .args(["-std=c11", "-O3", "-fPIC", "-pthread"])
        .args(tool("CFLAGS", "").split_whitespace())
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(&object));
    run(Command::new(tool("AR", "ar")).arg("crs").arg(&library).arg(&object));

    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=gemma4c");
    println!("cargo:rustc-link-lib=m");
    println!("cargo:rustc-link-lib=pthread");
}
